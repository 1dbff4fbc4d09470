/** Bounds of long texts and bytes, cut to a width (table property `write.metadata.metrics.default`: `truncate(16)`). */
import type { PrimitiveType, Value } from './types.ts';

const lastCodePoint = 0x10ffff;

/** At most `width` code points or bytes, not above the value. */
export function truncateLower(type: PrimitiveType, value: Value, width: number): Value {
  if (type === 'string') return firstCodePoints(value as string, width);
  if (type === 'binary') return (value as Uint8Array).slice(0, width);
  return value;
}

/** At most `width` code points or bytes, not below the value; null where nothing that short is. */
export function truncateUpper(type: PrimitiveType, value: Value, width: number): Value | null {
  if (type === 'string') {
    const cut = firstCodePoints(value as string, width);
    return cut === value ? cut : nextText(cut);
  }
  if (type === 'binary') {
    const bytes = value as Uint8Array;
    return bytes.length <= width ? bytes : nextBytes(bytes.slice(0, width));
  }
  return value;
}

export function firstCodePoints(text: string, count: number): string {
  if (text.length <= count) return text;
  let end = 0;
  for (let points = 0; points < count && end < text.length; points += 1) {
    end += text.codePointAt(end)! > 0xffff ? 2 : 1;
  }
  return text.slice(0, end);
}

/** The smallest text that is above every text with this beginning. */
function nextText(beginning: string): string | null {
  const points = [...beginning];
  while (points.length > 0) {
    const last = points.pop()!.codePointAt(0)!;
    if (last === lastCodePoint) continue;
    // Surrogates are no characters of their own.
    const next = last === 0xd7ff ? 0xe000 : last + 1;
    return points.join('') + String.fromCodePoint(next);
  }
  return null;
}

function nextBytes(beginning: Uint8Array): Uint8Array | null {
  for (let at = beginning.length - 1; at >= 0; at -= 1) {
    if (beginning[at] === 0xff) continue;
    const next = beginning.slice(0, at + 1);
    next[at]! += 1;
    return next;
  }
  return null;
}
