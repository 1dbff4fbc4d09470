/** From here on a buffer grows by less than it holds. */
const largeBytes = 1 << 20;

/**
 * Where encoded records are written: one growing arena per batch. A record is a run of bytes between two marks and
 * never moves once it is closed, so that it can be handed to the producer without another copy.
 */
export class ByteWriter {
  bytes: Buffer;
  position = 0;
  /** Set by a codec whose Avro form is not the whole value; whoever asked for the value takes it back. */
  inexact = false;
  readonly #chunkBytes: number;
  /** Start of the run being written: what must move along when the arena grows. */
  #open = 0;

  /** @param bytes used as the first chunk, where given */
  constructor(chunkBytes = 1 << 20, bytes: Buffer = Buffer.allocUnsafeSlow(chunkBytes)) {
    this.#chunkBytes = chunkBytes;
    this.bytes = bytes;
  }

  /** Begins a run. */
  mark(): void {
    this.#open = this.position;
  }

  /** The bytes since mark(). They stay valid as long as the caller keeps them. */
  take(): Buffer {
    const run = this.bytes.subarray(this.#open, this.position);
    this.#open = this.position;
    return run;
  }

  /** Bytes written since mark(); a savepoint for truncate. */
  get written(): number {
    return this.position - this.#open;
  }

  /** Forgets what was written after the savepoint. */
  truncate(written: number): void {
    this.position = this.#open + written;
  }

  /** Makes room for n more bytes; only the open run is copied to the new chunk. */
  ensure(n: number): void {
    if (this.position + n <= this.bytes.length) return;
    const openBytes = this.position - this.#open;
    const needed = openBytes + n;
    // Twice as much, so that a run that grows is copied now and then; of a large one no more than a quarter is idle.
    const roomy = needed < largeBytes ? needed * 2 : Math.ceil(needed * 1.25);
    const next = Buffer.allocUnsafeSlow(Math.max(this.#chunkBytes, roomy));
    this.bytes.copy(next, 0, this.#open, this.position);
    this.bytes = next;
    this.#open = 0;
    this.position = openBytes;
  }

  byte(value: number): void {
    this.ensure(1);
    this.bytes[this.position++] = value;
  }

  raw(source: Buffer, start = 0, end = source.length): void {
    const length = end - start;
    this.ensure(length);
    // Below about 40 bytes a loop is cheaper than the call into native copy.
    if (length <= 40) {
      const { bytes } = this;
      let at = this.position;
      for (let i = start; i < end; i++) bytes[at++] = source[i]!;
      this.position = at;
      return;
    }
    source.copy(this.bytes, this.position, start, end);
    this.position += length;
  }

  /** Avro long (zig-zag varint) from a safe integer. */
  long(value: number): void {
    this.ensure(10);
    let n = value >= 0 ? value * 2 : -value * 2 - 1;
    const { bytes } = this;
    let at = this.position;
    while (n >= 0x80000000) {
      bytes[at++] = (n % 128) | 0x80;
      n = Math.floor(n / 128);
    }
    let small = n >>> 0;
    while (small > 127) {
      bytes[at++] = (small & 0x7f) | 0x80;
      small >>>= 7;
    }
    bytes[at++] = small;
    this.position = at;
  }

  /** Avro long from a 64-bit integer. */
  bigLong(value: bigint): void {
    if (value >= -0xfffffffffffffn && value <= 0xfffffffffffffn) {
      this.long(Number(value));
      return;
    }
    this.ensure(10);
    let n = BigInt.asUintN(64, (value << 1n) ^ (value >> 63n));
    while (n > 127n) {
      this.bytes[this.position++] = Number(n & 0x7fn) | 0x80;
      n >>= 7n;
    }
    this.bytes[this.position++] = Number(n);
  }

  /** Avro long of a thousand times the value, which may be past what a number holds. @param value not negative */
  thousandfold(value: number): void {
    this.ensure(10);
    // Doubled, as zig-zag does, in two parts of which the lower has four groups of seven bits.
    const low = (value % 0x10000000) * 2000;
    let high = Math.floor(value / 0x10000000) * 2000 + Math.floor(low / 0x10000000);
    let rest = low % 0x10000000;
    if (high === 0) {
      this.long(rest / 2);
      return;
    }
    const { bytes } = this;
    for (let group = 0; group < 4; group++) {
      bytes[this.position++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    for (; high > 127; high = Math.floor(high / 128)) bytes[this.position++] = (high % 128) | 0x80;
    bytes[this.position++] = high;
  }

  /** Avro string or bytes: length and the bytes as they are. */
  lengthPrefixed(source: Buffer, start: number, end: number): void {
    this.long(end - start);
    this.raw(source, start, end);
  }

  /** Avro string from ASCII text. */
  ascii(text: string): void {
    this.long(text.length);
    this.asciiRaw(text);
  }

  asciiRaw(text: string): void {
    this.ensure(text.length);
    const { bytes } = this;
    let at = this.position;
    for (let i = 0; i < text.length; i++) bytes[at++] = text.charCodeAt(i);
    this.position = at;
  }

  /** Avro string from any text. */
  text(text: string): void {
    const length = Buffer.byteLength(text);
    this.long(length);
    this.ensure(length);
    this.position += this.bytes.write(text, this.position, length, 'utf8');
  }
}

/** Reads the Avro primitives the decoder needs. */
export class ByteReader {
  bytes: Buffer;
  position: number;

  constructor(bytes: Buffer, position = 0) {
    this.bytes = bytes;
    this.position = position;
  }

  byte(): number {
    return this.bytes[this.position++]!;
  }

  /** Avro long as a number; loses precision beyond 2^53 (use bigLong where that can happen). */
  long(): number {
    let b = this.byte();
    let value = b & 0x7f;
    let scale = 128;
    while (b & 0x80) {
      b = this.byte();
      value += (b & 0x7f) * scale;
      scale *= 128;
    }
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  bigLong(): bigint {
    let shift = 0n;
    let value = 0n;
    let b: number;
    do {
      b = this.byte();
      value |= BigInt(b & 0x7f) << shift;
      shift += 7n;
    } while (b & 0x80);
    return (value >> 1n) ^ -(value & 1n);
  }

  /** A view, valid as long as the input. */
  lengthPrefixed(): Buffer {
    const length = this.long();
    const view = this.bytes.subarray(this.position, this.position + length);
    this.position += length;
    return view;
  }

  text(): string {
    const length = this.long();
    const text = this.bytes.toString('utf8', this.position, this.position + length);
    this.position += length;
    return text;
  }
}
