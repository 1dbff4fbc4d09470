/**
 * Iceberg types as Avro schemas with their field ids (Iceberg specification, Appendix A, "Avro"), and the other way: the
 * schema of somebody's file under our names, found by field id.
 */
import type { Json, JsonObject } from '../catalog/exact-json.ts';
import { childFields, type NestedField, type Type } from './schema.ts';
import { decimalBytes, decimalParts, fixedLength, type PrimitiveType, typeKind } from './types.ts';

/** Whether a 64-bit integer is an id or a column's value, which must not be rounded. */
export type IsExact = (fieldId: number) => boolean;

/** A record whose fields have their Iceberg names as far as Avro takes them. */
export function avroRecord(name: string, fields: readonly NestedField[], exact: IsExact): JsonObject {
  const names = avroNames(fields);
  return {
    type: 'record',
    name,
    fields: fields.map((field, index) => {
      const type = avroType(field.type, field.id, exact);
      const avroName = names[index]!;
      return {
        name: avroName,
        ...(avroName === field.name ? {} : { 'iceberg-field-name': field.name }),
        type: field.required ? type : ['null', type],
        ...(field.required ? {} : { default: null }),
        'field-id': field.id,
      };
    }),
  };
}

function avroType(type: Type, id: number, exact: IsExact): Json {
  if (typeof type === 'string') return avroPrimitive(type, id, exact(id));
  if (type.type === 'struct') return avroRecord(`r${id}`, type.fields, exact);
  if (type.type === 'list') {
    const element = avroType(type.element, type['element-id'], exact);
    return {
      type: 'array',
      items: type['element-required'] ? element : ['null', element],
      'element-id': type['element-id'],
    };
  }
  const entry = avroRecord(`k${type['key-id']}_v${type['value-id']}`, childFields(type), exact);
  return { type: 'array', items: entry, logicalType: 'map' };
}

/** Named types are named for their field: Avro does not let a name be given twice. */
function avroPrimitive(type: PrimitiveType, id: number, exact: boolean): Json {
  const mark = exact ? { exact: true } : {};
  switch (typeKind(type)) {
    case 'long':
      return exact ? { type: 'long', exact: true } : 'long';
    case 'date':
      return { type: 'int', logicalType: 'date' };
    case 'time':
      return { type: 'long', logicalType: 'time-micros', ...mark };
    case 'timestamp':
      return { type: 'long', logicalType: 'timestamp-micros', 'adjust-to-utc': false, ...mark };
    case 'timestamptz':
      return { type: 'long', logicalType: 'timestamp-micros', 'adjust-to-utc': true, ...mark };
    case 'timestamp_ns':
      return { type: 'long', logicalType: 'timestamp-nanos', 'adjust-to-utc': false, ...mark };
    case 'timestamptz_ns':
      return { type: 'long', logicalType: 'timestamp-nanos', 'adjust-to-utc': true, ...mark };
    case 'uuid':
      return { type: 'fixed', name: `uuid_${id}`, size: 16, logicalType: 'uuid' };
    case 'fixed':
      return { type: 'fixed', name: `fixed_${id}`, size: fixedLength(type)! };
    case 'binary':
      return 'bytes';
    case 'decimal': {
      const { precision, scale } = decimalParts(type)!;
      const size = decimalBytes(precision);
      return { type: 'fixed', name: `decimal_${id}`, size, logicalType: 'decimal', precision, scale };
    }
    default:
      return type;
  }
}

/** What avroRecord calls the fields. */
export function avroNames(fields: readonly NestedField[]): string[] {
  const taken = new Set<string>();
  return fields.map(({ id, name }) => {
    const compatible = compatibleName(name);
    const avroName = taken.has(compatible) ? `${compatible}_${id}` : compatible;
    taken.add(avroName);
    return avroName;
  });
}

/** Characters that Avro does not have in names become `_x` and their code. */
function compatibleName(name: string): string {
  if (/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) return name;
  const escaped = [...name].map((char, index) => {
    if (/[A-Za-z_]/.test(char)) return char;
    if (/[0-9]/.test(char)) return index === 0 ? `_${char}` : char;
    return `_x${char.codePointAt(0)!.toString(16).toUpperCase()}`;
  });
  return escaped.length === 0 ? '_' : escaped.join('');
}

/** The name by which the reader of a record knows a field. */
export type FieldNames = (fieldId: number) => string | undefined;

/** Of nested records, by the id of the field that holds them; others are named as in the outer one. */
export type NestedNames = ReadonlyMap<number, { names: FieldNames; exact: IsExact }>;

/** Fields without an id or a name of ours keep theirs. */
export function readableSchema(schema: Json, names: FieldNames, exact: IsExact, nested: NestedNames): Json {
  return renamed(schema, names, exact, nested, false);
}

function renamed(schema: Json, names: FieldNames, exact: IsExact, nested: NestedNames, mark: boolean): Json {
  if (Array.isArray(schema)) return schema.map((each) => renamed(each, names, exact, nested, mark));
  if (schema === 'long') return mark ? { type: 'long', exact: true } : schema;
  if (schema === null || typeof schema !== 'object') return schema;
  const { type } = schema;
  if (type === 'long') return mark ? { type: 'long', exact: true } : 'long';
  if (type === 'record' && Array.isArray(schema.fields)) {
    const fields = schema.fields.map((each) => renamedField(each as JsonObject, names, exact, nested));
    return { ...schema, fields };
  }
  if (type === 'array') return { ...schema, items: renamed(schema.items!, names, exact, nested, mark) };
  // Some writers say { type: { type: … } }.
  if (type !== null && typeof type === 'object') return renamed(type, names, exact, nested, mark);
  return schema;
}

function renamedField(field: JsonObject, names: FieldNames, exact: IsExact, nested: NestedNames): JsonObject {
  const id = typeof field['field-id'] === 'number' ? field['field-id'] : -1;
  const inner = nested.get(id) ?? { names, exact };
  const { default: _unused, ...rest } = field;
  return {
    ...rest,
    name: names(id) ?? field.name!,
    type: renamed(field.type!, inner.names, inner.exact, nested, exact(id)),
  };
}
