/** Avro schemas of a table's records, as Connect's AvroConverter would write them. */
import type { TableShape } from '../../../src/connector/shape.ts';
import type { TableFields } from './fields.ts';
import type { Form } from './forms.ts';

export interface AvroRecord {
  schema: Record<string, unknown>;
  /** Names of the fields, in their order. */
  names: string[];
}

/** Every other character becomes `_`, and a leading digit gets one in front. */
function avroName(name: string): string {
  const clean = name.replace(/[^A-Za-z0-9_]/gu, '_');
  return /^[A-Za-z_]/.test(clean) ? clean : `_${clean}`;
}

/** Those that would share a name get `_2`, `_3`, … in their order. */
function avroNames(names: readonly string[]): string[] {
  // What JavaScript's objects take for something else is nobody's.
  const taken = new Set<string>(['__proto__']);
  return names.map((name) => {
    const clean = avroName(name);
    let free = clean;
    for (let n = 2; taken.has(free); n += 1) free = `${clean}_${n}`;
    taken.add(free);
    return free;
  });
}

function namespaceOf(topic: string): string {
  return topic
    .split('.')
    .filter((part) => part !== '')
    .map(avroName)
    .join('.');
}

export function keySchema(topic: string, key: NonNullable<TableFields['key']>): AvroRecord {
  const names = avroNames(key.map(({ name }) => name));
  const namespace = namespaceOf(topic);
  return {
    names,
    schema: {
      type: 'record',
      name: 'Key',
      namespace,
      fields: key.map(({ kind }, i) => ({ name: names[i], type: avroType({ kind } as Form) })),
      'connect.name': `${namespace}.Key`,
    },
  };
}

/**
 * Every field may be null and is so by default, those of the key as well: columns come, go and are renamed without
 * breaking a reader. The tidemark attribute has the table's own shape.
 */
export function valueSchema(topic: string, { columns, metadata, shape }: TableFields): AvroRecord {
  const fields = [...columns, ...metadata];
  const names = avroNames(fields.map(({ name }) => name));
  const namespace = namespaceOf(topic);
  return {
    names,
    schema: {
      type: 'record',
      name: 'Value',
      namespace,
      fields: fields.map(({ form }, i) => ({
        name: names[i],
        type: ['null', avroType(form)],
        default: null,
      })),
      'connect.name': `${namespace}.Value`,
      tidemark: shapeAttribute(shape),
    },
  };
}

function shapeAttribute({ schema, name, oid, columns }: TableShape): Record<string, unknown> {
  return {
    schema,
    table: name,
    ...(oid === undefined ? {} : { oid }),
    // In the order of the fields.
    columns: columns.map(({ name: column, type, number, missing }) => ({
      name: column,
      type,
      ...(number === undefined ? {} : { number }),
      ...(missing === undefined ? {} : { missing }),
    })),
  };
}

function avroType(form: Form): unknown {
  const logical = (type: string, name: string, logicalType: string, more: Record<string, unknown> = {}) => ({
    type,
    'connect.version': 1,
    'connect.name': `org.apache.kafka.connect.data.${name}`,
    logicalType,
    ...more,
  });
  switch (form.kind) {
    case 'int16':
      return { type: 'int', 'connect.type': 'int16' };
    case 'int32':
      return 'int';
    case 'int64':
      return 'long';
    case 'float32':
      return 'float';
    case 'float64':
      return 'double';
    case 'date':
      return logical('int', 'Date', 'date');
    case 'timestamp':
      return logical('long', 'Timestamp', 'timestamp-millis');
    case 'decimal':
      return logical('bytes', 'Decimal', 'decimal', {
        precision: form.precision,
        scale: form.scale,
        'connect.parameters': {
          scale: String(form.scale),
          'connect.decimal.precision': String(form.precision),
        },
      });
    default:
      return form.kind;
  }
}
