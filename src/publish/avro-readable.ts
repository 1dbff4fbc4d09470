/** Avro's schema resolution (Avro 1.12, Schema Resolution), for the schemas that codecs have. */
import type { AvroSchema } from './types/codec.ts';

/** Whether what `writer` wrote can be read as `reader`, and means the same. */
export function readable(writer: AvroSchema, reader: AvroSchema): boolean {
  const [from, to] = [kindOf(writer), kindOf(reader)];
  if (from === to) {
    if (from !== 'array' && from !== 'record') return attributesAgree(writer, reader);
    if (from === 'record') return JSON.stringify(writer) === JSON.stringify(reader);
    return readable(itemsOf(writer), itemsOf(reader));
  }
  return promotions[from]?.includes(to) ?? false;
}

const promotions: Record<string, readonly string[]> = {
  int: ['long', 'float', 'double'],
  long: ['float', 'double'],
  float: ['double'],
};

/** A decimal's bytes mean another number at another scale. */
function attributesAgree(writer: AvroSchema, reader: AvroSchema): boolean {
  const scale = (schema: AvroSchema) =>
    typeof schema === 'object' && !Array.isArray(schema) ? (schema.scale ?? null) : null;
  return scale(writer) === scale(reader);
}

function kindOf(schema: AvroSchema): string {
  if (typeof schema === 'string') return schema;
  return Array.isArray(schema) ? 'union' : kindOf(schema.type);
}

function itemsOf(schema: AvroSchema): AvroSchema {
  const items = (schema as unknown as { items: AvroSchema[] }).items;
  return items[1]!;
}

export function avroText(schema: AvroSchema): string {
  return kindOf(schema) === 'array' ? `array of ${avroText(itemsOf(schema))}` : kindOf(schema);
}
