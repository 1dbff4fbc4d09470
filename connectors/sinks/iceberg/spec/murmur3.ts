/** 32-bit Murmur3, x86 variant, seed 0 (Iceberg specification, Appendix B). */
const first = 0xcc9e2d51;
const second = 0x1b873593;

/** A signed 32-bit integer. */
export function murmur3(bytes: Uint8Array): number {
  const length = bytes.length;
  const whole = length & ~3;
  let hash = 0;
  for (let at = 0; at < whole; at += 4) {
    const block = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    hash ^= scramble(block);
    hash = (hash << 13) | (hash >>> 19);
    hash = (Math.imul(hash, 5) + 0xe6546b64) | 0;
  }
  let rest = 0;
  for (let at = length - 1; at >= whole; at -= 1) rest = (rest << 8) | bytes[at]!;
  if (whole < length) hash ^= scramble(rest);
  hash ^= length;
  hash ^= hash >>> 16;
  hash = Math.imul(hash, 0x85ebca6b);
  hash ^= hash >>> 13;
  hash = Math.imul(hash, 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) | 0;
}

function scramble(block: number): number {
  const mixed = Math.imul(block, first);
  return Math.imul((mixed << 15) | (mixed >>> 17), second);
}
