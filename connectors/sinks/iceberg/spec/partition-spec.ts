/** Partition specs and the tuples that they make (Iceberg specification, "Partitioning", Appendix C). */

import type { Json } from '../catalog/exact-json.ts';
import { malformed } from '../failures.ts';
import { JsonReader } from './json-reader.ts';
import { fieldById, type Schema } from './schema.ts';
import { applyTransform, parseTransform, type Transform, transformedType } from './transforms.ts';
import type { PrimitiveType, Value } from './types.ts';

export interface PartitionField {
  'source-id': number;
  'field-id': number;
  name: string;
  transform: string;
}

export interface PartitionSpec {
  'spec-id': number;
  fields: PartitionField[];
}

/** One value for each field of the spec, in its order. */
export type PartitionTuple = readonly (Value | null)[];

/** Where version 1 began to count, and every table since. */
export const firstPartitionFieldId = 1000;

export const unpartitioned: PartitionSpec = { 'spec-id': 0, fields: [] };

/** @throws TidemarkError TM405 */
export function parsePartitionSpec(json: Json | undefined, what: string): PartitionSpec {
  const reader = new JsonReader(json, what);
  return { 'spec-id': reader.integer('spec-id'), fields: parsePartitionFields(reader) };
}

/** The list `fields`; in version 1 its fields may lack ids and are counted through. */
export function parsePartitionFields(reader: JsonReader): PartitionField[] {
  let position = 0;
  return reader.list('fields', (each, what) => {
    const field = new JsonReader(each, what);
    const counted = firstPartitionFieldId + position;
    position += 1;
    return {
      'source-id': field.integer('source-id'),
      'field-id': field.optional('field-id', () => field.integer('field-id')) ?? counted,
      name: field.text('name'),
      transform: field.text('transform'),
    };
  });
}

/** A partition field with what it works on. */
export interface BoundPartitionField {
  id: number;
  name: string;
  sourceId: number;
  /** Null where the source column is in no schema of the table; the transform is void or unknown then. */
  sourceType: PrimitiveType | null;
  transform: Transform;
  resultType: PrimitiveType;
}

/**
 * @param schemas the table's, current one first: a spec of the past may name a column that was dropped since
 * @throws TidemarkError TM405 where a source column cannot be partitioned by
 */
export function bindSpec(spec: PartitionSpec, schemas: readonly Schema[]): BoundPartitionField[] {
  return spec.fields.map(({ 'source-id': sourceId, 'field-id': id, name, transform: text }) => {
    const transform = parseTransform(text);
    const sourceType = sourceTypeOf(sourceId, schemas);
    if (sourceType === null) {
      if (transform.kind !== 'void' && transform.kind !== 'unknown')
        throw malformed(
          `partition spec ${spec['spec-id']} names the column ${sourceId}, which no schema has`,
        );
      return { id, name, sourceId, sourceType, transform, resultType: 'int' };
    }
    const resultType = transformedType(transform, sourceType);
    return { id, name, sourceId, sourceType, transform, resultType };
  });
}

function sourceTypeOf(id: number, schemas: readonly Schema[]): PrimitiveType | null {
  for (const schema of schemas) {
    const type = fieldById(schema, id)?.type;
    if (typeof type === 'string') return type;
  }
  return null;
}

/** @param columnValue the value of a source column */
export function partitionOf(
  fields: readonly BoundPartitionField[],
  columnValue: (sourceId: number) => Value | null,
): PartitionTuple {
  return fields.map(({ sourceId, sourceType, transform }) =>
    sourceType === null ? null : applyTransform(transform, sourceType, columnValue(sourceId)),
  );
}

/** Text that is the same for equal tuples of a spec, whichever width its integers were written in. */
export function partitionKey(specId: number, tuple: PartitionTuple): string {
  return JSON.stringify([specId, ...tuple.map(valueText)]);
}

function valueText(value: Value | null): string | null {
  if (value === null) return null;
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  if (Object.is(value, -0)) return '-0';
  return String(value);
}

/** A spec whose files are all in one partition. */
export function isUnpartitioned({ fields }: PartitionSpec): boolean {
  return fields.every(({ transform }) => transform === 'void');
}

export function sameSpec(left: PartitionSpec, right: PartitionSpec): boolean {
  const content = ({ fields }: PartitionSpec) =>
    JSON.stringify(fields.map(({ 'source-id': source, name, transform }) => [source, name, transform]));
  return content(left) === content(right);
}
