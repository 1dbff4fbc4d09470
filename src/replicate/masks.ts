/**
 * The documented masks: from Postgres' own text of a value to a text that says less. A value that does not have the
 * form a mask expects becomes the fixed text; a value never passes as it is.
 */
import { isIPv4, isIPv6 } from 'node:net';
import type { MaskForm } from '../platform/column-policy.ts';

/** What stands for a value of which nothing may be said. */
export const fixedMask = '***';

const masks: Record<MaskForm, (text: string) => string | null> = {
  full: () => null,
  email: maskEmail,
  last4: maskLast4,
  year: maskYear,
  network: maskNetwork,
};

export function mask(form: MaskForm, text: string): string {
  return masks[form](text) ?? fixedMask;
}

/** `ada@example.com` to `a***@example.com`; a local part of one character would be whole, so it goes as well. */
function maskEmail(text: string): string | null {
  const match = /^([^\s@"<>(),;:\\]+)@([\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)*)$/u.exec(text);
  // What is asterisks alone would stand in its own mask.
  if (!match || /^\*+$/.test(match[1]!)) return null;
  const characters = [...match[1]!];
  return `${characters.length > 1 ? characters[0] : ''}${fixedMask}@${match[2]}`;
}

/** `4111 1111 1111 1234` to `***1234`: the last four letters or digits, where there are at least eight. */
function maskLast4(text: string): string | null {
  const characters = text.match(/[\p{L}\p{N}]/gu) ?? [];
  return characters.length < 8 ? null : `${fixedMask}${characters.slice(-4).join('')}`;
}

/** `1815-12-10` to `1815`, also of timestamps; `BC` stays. */
function maskYear(text: string): string | null {
  const match =
    /^(\d{4,7})-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d(?::?\d\d){0,2})?)?( BC)?$/.exec(
      text,
    );
  return match ? `${match[1]}${match[2] ?? ''}` : null;
}

/** `198.51.100.7` to `198.51.100.0/24`, `2001:db8:1:2::3` to `2001:db8:1::/48`; a wider network stays as wide. */
function maskNetwork(text: string): string | null {
  const [address = '', prefix, more] = text.split('/');
  if (more !== undefined || (prefix !== undefined && !/^\d{1,3}$/.test(prefix))) return null;
  const bits = prefix === undefined ? 128 : Number(prefix);
  if (isIPv4(address)) return networkText(address.split('.').map(Number), 8, Math.min(bits, 24), '.');
  // A zone (%eth0) names the machine that wrote it down.
  if (!isIPv6(address) || address.includes('%')) return null;
  return networkText(ipv6Groups(address), 16, Math.min(bits, 48), ':');
}

/** @param width bits of a part @param bits how many of the address stay */
function networkText(parts: number[], width: 8 | 16, bits: number, separator: '.' | ':'): string {
  const kept = parts.map((part, i) => {
    const own = Math.max(0, Math.min(width, bits - i * width));
    return part & ~((1 << (width - own)) - 1);
  });
  if (separator === '.') return `${kept.join('.')}/${bits}`;
  // At most three groups are left, so the run of zeros is always the end.
  while (kept.length > 0 && kept.at(-1) === 0) kept.pop();
  return `${kept.map((part) => part.toString(16)).join(':')}::/${bits}`;
}

/** The eight groups of a valid address, `::` and an embedded IPv4 address written out. */
function ipv6Groups(address: string): number[] {
  const [head = '', tail] = address.split('::');
  const groups = (text: string): number[] =>
    text.split(':').flatMap((part) => {
      if (part === '') return [];
      if (!part.includes('.')) return [Number.parseInt(part, 16)];
      const [a = 0, b = 0, c = 0, d = 0] = part.split('.').map(Number);
      return [a * 256 + b, c * 256 + d];
    });
  const before = groups(head);
  const after = tail === undefined ? [] : groups(tail);
  return [...before, ...new Array<number>(8 - before.length - after.length).fill(0), ...after];
}
