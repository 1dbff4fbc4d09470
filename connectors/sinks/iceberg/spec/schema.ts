/** Schemas as their JSON (Iceberg specification, Appendix C, "Schemas"). */

import type { Json } from '../catalog/exact-json.ts';
import { malformed } from '../failures.ts';
import { JsonReader, readInteger } from './json-reader.ts';
import { type PrimitiveType, parsePrimitiveType } from './types.ts';

export interface NestedField {
  id: number;
  name: string;
  required: boolean;
  type: Type;
  doc?: string;
}

export interface StructType {
  type: 'struct';
  fields: NestedField[];
}

export interface ListType {
  type: 'list';
  'element-id': number;
  'element-required': boolean;
  element: Type;
}

export interface MapType {
  type: 'map';
  'key-id': number;
  key: Type;
  'value-id': number;
  'value-required': boolean;
  value: Type;
}

export type Type = PrimitiveType | StructType | ListType | MapType;

export interface Schema extends StructType {
  'schema-id': number;
  'identifier-field-ids'?: number[];
}

/** Of the columns that metadata tables and position delete files have; a table's own ids stay below them. */
const firstReservedId = 2147483447;

/** @throws TidemarkError TM405 */
export function parseSchema(json: Json | undefined, what: string): Schema {
  const reader = new JsonReader(json, what);
  const identifiers = reader.optional('identifier-field-ids', () =>
    reader.list('identifier-field-ids', readInteger),
  );
  const schema: Schema = {
    type: 'struct',
    // Optional in version 1, where a schema may stand alone.
    'schema-id': reader.optional('schema-id', () => reader.integer('schema-id')) ?? 0,
    ...(identifiers === undefined ? {} : { 'identifier-field-ids': identifiers }),
    fields: readFields(reader),
  };
  const ids = new Set<number>();
  visitFields(schema, ({ id }) => {
    if (ids.has(id) || id > firstReservedId) throw malformed(`${what}: field id ${id} is taken`);
    ids.add(id);
  });
  return schema;
}

function readFields(reader: JsonReader): NestedField[] {
  return reader.list('fields', (each, what) => {
    const field = new JsonReader(each, what);
    const doc = field.optional('doc', () => field.text('doc'));
    return {
      id: field.integer('id'),
      name: field.text('name'),
      required: field.boolean('required'),
      type: readType(field, 'type'),
      ...(doc === undefined ? {} : { doc }),
    };
  });
}

function readType(reader: JsonReader, name: string): Type {
  const json = reader.fields[name];
  if (typeof json === 'string') return parsePrimitiveType(json, `${reader.what}, ${name}`);
  const nested = reader.object(name);
  switch (nested.text('type')) {
    case 'struct':
      return { type: 'struct', fields: readFields(nested) };
    case 'list':
      return {
        type: 'list',
        'element-id': nested.integer('element-id'),
        'element-required': nested.boolean('element-required'),
        element: readType(nested, 'element'),
      };
    case 'map':
      return {
        type: 'map',
        'key-id': nested.integer('key-id'),
        key: readType(nested, 'key'),
        'value-id': nested.integer('value-id'),
        'value-required': nested.boolean('value-required'),
        value: readType(nested, 'value'),
      };
    default:
      throw malformed(`${nested.what} is no type of format version 2`);
  }
}

/** Every field, elements, keys and values of nested types too, outer ones first. */
export function visitFields(type: Type, visit: (field: NestedField, path: readonly string[]) => void): void {
  walk(type, [], visit);
}

function walk(
  type: Type,
  path: string[],
  visit: (field: NestedField, path: readonly string[]) => void,
): void {
  for (const field of childFields(type)) {
    const inner = [...path, field.name];
    visit(field, inner);
    walk(field.type, inner, visit);
  }
}

/** Fields of a struct; of a list and a map their element, key and value under those names. */
export function childFields(type: Type): NestedField[] {
  if (typeof type === 'string') return [];
  if (type.type === 'struct') return type.fields;
  if (type.type === 'list') {
    const { 'element-id': id, 'element-required': required, element } = type;
    return [{ id, name: 'element', required, type: element }];
  }
  return [
    { id: type['key-id'], name: 'key', required: true, type: type.key },
    { id: type['value-id'], name: 'value', required: type['value-required'], type: type.value },
  ];
}

export function fieldById(schema: StructType, id: number): NestedField | undefined {
  let found: NestedField | undefined;
  visitFields(schema, (field) => {
    if (field.id === id) found ??= field;
  });
  return found;
}

/** Zero where there is none. */
export function highestFieldId(schema: StructType): number {
  let highest = 0;
  visitFields(schema, ({ id }) => {
    highest = Math.max(highest, id);
  });
  return highest;
}

/** Whether two schemas are the same but for their ids. */
export function sameSchema(left: Schema, right: Schema): boolean {
  return content(left) === content(right);
}

function content(schema: Schema): string {
  // Read anew, so that the order of keys is one and the same.
  const { fields, 'identifier-field-ids': identifiers = [] } = parseSchema(
    schema as unknown as Json,
    'schema',
  );
  return JSON.stringify([fields, [...identifiers].sort((a, b) => a - b)]);
}
