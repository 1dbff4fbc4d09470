/**
 * Iceberg's int and long are int32 and int64 without a logical type (specification, Appendix A). DuckDB marks them as
 * integers of their width all the same, and Iceberg's vectorized reader up to 1.11 fails at such a mark once the column has
 * been promoted from int to long (its issue 16341). So the marks are taken out of the footer, which is Thrift in the compact
 * protocol: FileMetaData, whose field 2 is a list of SchemaElement, whose field 6 is the mark.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { malformed } from '../failures.ts';

/** `INT_32` and `INT_64` of Parquet's ConvertedType. */
const widthMarks: ReadonlySet<number> = new Set([17, 18]);
const schemaField = 2;
const markField = 6;
/** Kinds of the compact protocol. */
const kinds = {
  stop: 0,
  true: 1,
  false: 2,
  byte: 3,
  double: 7,
  binary: 8,
  list: 9,
  set: 10,
  map: 11,
  struct: 12,
};
/** Length of the footer and `PAR1`. */
const trailerBytes = 8;

/** @returns the file's size afterwards */
export async function writePlainIntegers(path: string): Promise<number> {
  const handle = await open(path, 'r+');
  try {
    const { size } = await handle.stat();
    const trailer = await read(handle, size - trailerBytes, trailerBytes);
    const length = trailer.readUInt32LE();
    const start = size - trailerBytes - length;
    const footer = withoutMarks(await read(handle, start, length));
    trailer.writeUInt32LE(footer.length);
    const end = Buffer.concat([footer, trailer]);
    await handle.write(end, 0, end.length, start);
    await handle.truncate(start + end.length);
    return start + end.length;
  } finally {
    await handle.close();
  }
}

async function read(handle: FileHandle, start: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await handle.read(buffer, 0, length, start);
  if (bytesRead !== length) throw malformed('a Parquet file ends before its footer does');
  return buffer;
}

export function withoutMarks(footer: Buffer): Buffer {
  const reader = new CompactReader(footer);
  for (let id = 0; ; ) {
    const field = reader.field(id);
    if (field === null) throw malformed('a Parquet footer has no schema');
    id = field.id;
    if (id === schemaField) break;
    reader.skip(field.kind);
  }
  const { count } = reader.listHeader();
  const from = reader.at;
  const elements = Array.from({ length: count }, () => unmarked(reader));
  return Buffer.concat([footer.subarray(0, from), ...elements, footer.subarray(reader.at)]);
}

/** A SchemaElement without its mark; the fields behind that count from the ones before. */
function unmarked(reader: CompactReader): Buffer {
  const parts: Buffer[] = [];
  let written = 0;
  for (let id = 0; ; ) {
    const field = reader.field(id);
    if (field === null) break;
    id = field.id;
    const from = reader.at;
    reader.skip(field.kind);
    const value = reader.bytes.subarray(from, reader.at);
    if (id === markField && widthMarks.has(new CompactReader(value).zigzag())) continue;
    parts.push(Buffer.from([((id - written) << 4) | field.kind]), value);
    written = id;
  }
  return Buffer.concat([...parts, Buffer.from([kinds.stop])]);
}

class CompactReader {
  readonly bytes: Buffer;
  at = 0;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  #byte(): number {
    const byte = this.bytes[this.at];
    if (byte === undefined) throw malformed('a Parquet footer is cut short');
    this.at += 1;
    return byte;
  }

  #varint(): number {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = this.#byte();
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
  }

  zigzag(): number {
    const value = this.#varint();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  /** Null at the end of a struct. @param before id of the field before */
  field(before: number): { id: number; kind: number } | null {
    const header = this.#byte();
    const kind = header & 0x0f;
    if (kind === kinds.stop) return null;
    const step = header >>> 4;
    return { id: step === 0 ? this.zigzag() : before + step, kind };
  }

  listHeader(): { count: number; kind: number } {
    const header = this.#byte();
    const short = header >>> 4;
    return { count: short === 15 ? this.#varint() : short, kind: header & 0x0f };
  }

  skip(kind: number): void {
    switch (kind) {
      // Of a field, the header is the value.
      case kinds.true:
      case kinds.false:
        return;
      case kinds.byte:
        this.at += 1;
        return;
      case kinds.double:
        this.at += 8;
        return;
      case kinds.binary: {
        const length = this.#varint();
        this.at += length;
        return;
      }
      case kinds.list:
      case kinds.set: {
        const { count, kind: element } = this.listHeader();
        for (let index = 0; index < count; index += 1) this.#skipElement(element);
        return;
      }
      case kinds.map: {
        const count = this.#varint();
        const both = count === 0 ? 0 : this.#byte();
        for (let index = 0; index < count; index += 1) {
          this.#skipElement(both >>> 4);
          this.#skipElement(both & 0x0f);
        }
        return;
      }
      case kinds.struct:
        for (let field = this.field(0); field !== null; field = this.field(field.id)) this.skip(field.kind);
        return;
      default:
        this.#varint();
    }
  }

  /** In a list, a boolean is a byte. */
  #skipElement(kind: number): void {
    if (kind === kinds.true || kind === kinds.false) this.at += 1;
    else this.skip(kind);
  }
}
