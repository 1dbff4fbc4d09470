/** Network addresses in their binary form. */
import { digits, type Write } from './binary-parts.ts';

/** network_recv: family, bits, whether it is a cidr, number of bytes, the bytes. */
export const inet: Write = (to, at, text) => {
  const slash = text.indexOf('/');
  const address = slash < 0 ? text : text.slice(0, slash);
  const four = !address.includes(':');
  const bytes = four ? fourBytes(address) : sixteenBytes(address);
  if (!bytes) return -1;
  const bits = slash < 0 ? bytes.length * 8 : digits(text, slash + 1, text.length);
  if (!(bits <= bytes.length * 8)) return -1;
  to.view.setInt32(at, 4 + bytes.length);
  to.bytes[at + 4] = four ? 2 : 3;
  to.bytes[at + 5] = bits;
  to.bytes[at + 6] = 0;
  to.bytes[at + 7] = bytes.length;
  for (let i = 0; i < bytes.length; i++) to.bytes[at + 8 + i] = bytes[i]!;
  return at + 8 + bytes.length;
};

function fourBytes(text: string): number[] | null {
  const bytes = text.split('.').map((part) => digits(part, 0, part.length));
  return bytes.length === 4 && bytes.every((byte) => byte <= 255) ? bytes : null;
}

function sixteenBytes(text: string): number[] | null {
  const halves = text.split('::').map((half) => (half === '' ? [] : half.split(':').map(groupBytes)));
  if (halves.length > 2 || halves.some((half) => half.includes(null))) return null;
  const [head, tail = []] = halves.map((half) => half.flatMap((group) => group!));
  const missing = 16 - head!.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 0) return null;
  return [...head!, ...new Array<number>(missing).fill(0), ...tail];
}

function groupBytes(text: string): number[] | null {
  if (text.includes('.')) return fourBytes(text);
  const value = /^[0-9a-f]{1,4}$/.test(text) ? Number.parseInt(text, 16) : Number.NaN;
  return Number.isNaN(value) ? null : [value >> 8, value & 255];
}
