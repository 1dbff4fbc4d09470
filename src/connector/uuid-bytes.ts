/** A uuid's 16 bytes, out of the text that Postgres prints. */

/** Values of hexadecimal digits by character, 255 for all others. */
export const hexDigits = new Uint8Array(0x1_0000).fill(255);
for (const [i, digit] of [...'0123456789abcdef'].entries()) hexDigits[digit.charCodeAt(0)] = i;

/** @returns whether it was the text of a uuid; if not, what is in `to` does not count */
export function uuidBytes(text: Buffer, start: number, end: number, to: Uint8Array, at: number): boolean {
  let all = end - start === 36 ? 0 : 255;
  let from = start;
  for (let i = 0; i < 16; i++) {
    if (i === 4 || i === 6 || i === 8 || i === 10) if (text[from++] !== 45) all = 255;
    const high = hexDigits[text[from]!]!;
    const low = hexDigits[text[from + 1]!]!;
    all |= high | low;
    to[at + i] = (high << 4) | low;
    from += 2;
  }
  return all <= 15;
}
