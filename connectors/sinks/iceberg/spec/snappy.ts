/** Unpacking a block of raw Snappy: manifests of writers whose `avro.compression-codec` is snappy. */

/** @throws RangeError where the block is damaged. */
export function unpackSnappy(block: Uint8Array): Buffer {
  let at = 0;
  const littleEndian = (bytes: number): number => {
    if (at + bytes > block.length) throw new RangeError('end');
    let value = 0;
    for (let index = 0; index < bytes; index += 1) value += block[at + index]! * 2 ** (8 * index);
    at += bytes;
    return value;
  };
  let length = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = block[at]!;
    at += 1;
    length += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) break;
    if (shift > 28) throw new RangeError('length');
  }
  const output = Buffer.alloc(length);
  let end = 0;
  while (at < block.length) {
    const tag = block[at]!;
    at += 1;
    if ((tag & 3) === 0) {
      const small = tag >>> 2;
      const count = (small < 60 ? small : littleEndian(small - 59)) + 1;
      if (at + count > block.length || end + count > length) throw new RangeError('literal');
      output.set(block.subarray(at, at + count), end);
      at += count;
      end += count;
      continue;
    }
    const near = (tag & 3) === 1;
    const count = near ? ((tag >>> 2) & 7) + 4 : (tag >>> 2) + 1;
    const offset = near ? ((tag >>> 5) << 8) | littleEndian(1) : littleEndian((tag & 3) === 2 ? 2 : 4);
    if (!(offset >= 1 && offset <= end) || end + count > length) throw new RangeError('copy');
    // Byte by byte: a copy may read what it has just written.
    for (let index = 0; index < count; index += 1) output[end + index] = output[end + index - offset]!;
    end += count;
  }
  if (end !== length) throw new RangeError('length');
  return output;
}
