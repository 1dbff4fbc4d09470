/**
 * A codec: how one Postgres type looks in pgoutput's binary form, in its text form, in Avro, and as Postgres' own text.
 * `encode` and `decode` are the two ends of the hot path; `text` gives the exactness header its value.
 */
import type { CellReceiver } from '../../connector/native-row.ts';
import type { ByteReader, ByteWriter } from '../byte-writer.ts';

export interface Codec {
  /** Avro schema of the bare (non-null) type. */
  schema: AvroSchema;
  /**
   * Writes the Avro form of the binary value at bytes[start, end).
   * @returns false where Avro has no usable form of the value; nothing is kept of what it wrote, the field becomes
   * null and the exactness header carries `text`. Where what it wrote is usable but not the whole value (an interval
   * with months), it sets `out.inexact`, and the header carries `text` as well.
   */
  encode(bytes: Buffer, start: number, end: number, out: ByteWriter): boolean;
  /** As `encode`, from the type's output text under the settings of connector/sink.ts, Cell. Byte for byte the same. */
  encodeText(bytes: Buffer, start: number, end: number, out: ByteWriter): boolean;
  /** Postgres' own text of the binary value. */
  text(bytes: Buffer, start: number, end: number): string;
  /** Reads the Avro form and gives Postgres' own text. */
  decode(reader: ByteReader): string;
  /** As `decode`, in a form that the receiver takes. Absent: as text. */
  pass?(reader: ByteReader, to: CellReceiver): void;
}

/** Postgres' own text of a binary value. */
export type BinaryText = (bytes: Buffer, start: number, end: number) => string;

export type AvroSchema = string | AvroSchema[] | { type: AvroSchema; [attribute: string]: unknown };
