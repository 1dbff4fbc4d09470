/** Which partition a record goes to: Kafka's default partitioner over the tenant's text, or over the record key. */

/** MurmurHash2 with Kafka's seed, as in the Java client's Utils.murmur2. */
export function murmur2(bytes: Buffer, length = bytes.length): number {
  const m = 0x5bd1e995;
  let h = 0x9747b28c ^ length;
  let at = 0;
  for (; at + 4 <= length; at += 4) {
    let k = bytes.readInt32LE(at);
    k = Math.imul(k, m);
    k ^= k >>> 24;
    k = Math.imul(k, m);
    h = Math.imul(h, m) ^ k;
  }
  const rest = length - at;
  if (rest === 3) h ^= bytes[at + 2]! << 16;
  if (rest >= 2) h ^= bytes[at + 1]! << 8;
  if (rest >= 1) {
    h ^= bytes[at]!;
    h = Math.imul(h, m);
  }
  h ^= h >>> 13;
  h = Math.imul(h, m);
  h ^= h >>> 15;
  return h;
}

/** @param length of the key, at the start of the bytes */
export function partitionOf(bytes: Buffer, partitions: number, length = bytes.length): number {
  return (murmur2(bytes, length) & 0x7fffffff) % partitions;
}
