/** What was found for a few bytes, by those bytes: of a bounded size, a new value takes the place of another. */
const places = 1024;

export class ByteMemo {
  readonly #keys: (Buffer | undefined)[] = [];
  readonly #values = new Int32Array(places);

  /** @returns -1 where it is not known (any more) */
  get(bytes: Buffer, start: number, end: number): number {
    const place = placeOf(bytes, start, end);
    const key = this.#keys[place];
    if (!key || key.length !== end - start) return -1;
    for (let i = 0; i < key.length; i++) if (key[i] !== bytes[start + i]) return -1;
    return this.#values[place]!;
  }

  /** @param value not negative */
  set(bytes: Buffer, start: number, end: number, value: number): void {
    const place = placeOf(bytes, start, end);
    this.#keys[place] = Buffer.from(bytes.subarray(start, end));
    this.#values[place] = value;
  }
}

/** FNV-1a. */
function placeOf(bytes: Buffer, start: number, end: number): number {
  let hash = 0x811c9dc5;
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193);
  return (hash ^ (hash >>> 15)) & (places - 1);
}
