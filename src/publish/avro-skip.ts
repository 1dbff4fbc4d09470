/** Goes past Avro values without looking at them. */
import type { ByteReader } from './byte-writer.ts';
import type { AvroSchema } from './types/codec.ts';

export type Skip = (reader: ByteReader) => void;

export function skipLong(reader: ByteReader): void {
  while ((reader.bytes[reader.position++]! & 0x80) !== 0);
}

export function skipText(reader: ByteReader): void {
  const length = reader.long();
  reader.position += length;
}

const primitives: Readonly<Record<string, Skip>> = {
  string: skipText,
  bytes: skipText,
  int: skipLong,
  long: skipLong,
  boolean: (reader) => {
    reader.position += 1;
  },
  float: (reader) => {
    reader.position += 4;
  },
  double: (reader) => {
    reader.position += 8;
  },
};

/** Of the types that columns have; null for any other. */
export function skipOf(schema: AvroSchema): Skip | null {
  if (typeof schema === 'string') return primitives[schema] ?? null;
  if (Array.isArray(schema)) return null;
  if (schema.type === 'record') {
    const fields = (schema.fields as { type: AvroSchema }[]).map(({ type }) => skipOf(type));
    if (fields.includes(null)) return null;
    return (reader) => {
      for (const skip of fields) skip!(reader);
    };
  }
  return schema.type === 'array' ? null : skipOf(schema.type);
}
