/**
 * Avro schemas of a table: Debezium's envelope (Debezium 3.6, PostgreSQL connector, Confluent Avro converter), with
 * the table's own shape in `tidemark` attributes, so that a consumer can rebuild the shape from the registry alone.
 */
import type { ColumnProtection, ColumnShape, EnumType, TableShape } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import { codecFor, variableScaleDecimalName } from './types/catalogue.ts';
import type { AvroSchema, Codec } from './types/codec.ts';

interface ShapeAttribute {
  schema: string;
  name: string;
  columns: { name: string; type: string; key?: true; enum?: EnumType; protection?: ColumnProtection }[];
  key: string[];
  tenant: string | null;
}

/** Characters that Avro does not allow in a name become `_`; a leading digit gets one in front, nothing becomes one. */
export function avroName(name: string): string {
  const safe = name.replace(/[^A-Za-z0-9_]/g, '_');
  return /^([0-9]|$)/.test(safe) ? `_${safe}` : safe;
}

function avroNamespace(topic: string): string {
  return topic.split('.').map(avroName).join('.');
}

/** Codecs of the shape's columns, in order. @throws TidemarkError TM208 naming the first column without one. */
export function columnCodecs(shape: TableShape): Codec[] {
  return shape.columns.map((column) => {
    const codec = codecFor(column);
    if (codec) return codec;
    throw new TidemarkError(
      'TM208',
      `column ${column.name} has type ${column.type}, which this version cannot represent`,
    );
  });
}

/**
 * @returns the schema text of `<topic>-value`
 * @throws TidemarkError TM208 for a type without a codec, or column names that Avro cannot tell apart
 */
export function valueSchema(shape: TableShape, topic: string): string {
  const namespace = avroNamespace(topic);
  const value = {
    type: 'record',
    name: 'Value',
    fields: columnFields(shape),
    'connect.name': `${namespace}.Value`,
  };
  const attribute: ShapeAttribute = {
    schema: shape.schema,
    name: shape.name,
    columns: shape.columns.map(({ name, type, key, enum: labels, protection }) => ({
      name,
      type,
      ...(key ? { key: true as const } : {}),
      ...(labels ? { enum: labels } : {}),
      ...(protection ? { protection } : {}),
    })),
    key: shape.keyColumns.map((i) => shape.columns[i]!.name),
    tenant: shape.tenantColumn === null ? null : shape.columns[shape.tenantColumn]!.name,
  };
  return JSON.stringify({
    type: 'record',
    name: 'Envelope',
    namespace,
    fields: [
      { name: 'before', type: ['null', value], default: null },
      { name: 'after', type: ['null', 'Value'], default: null },
      { name: 'source', type: sourceSchema },
      { name: 'transaction', type: ['null', transactionSchema], default: null },
      { name: 'op', type: 'string' },
      ...['ts_ms', 'ts_us', 'ts_ns'].map((name) => ({ name, type: ['null', 'long'], default: null })),
    ],
    'connect.version': 2,
    'connect.name': `${namespace}.Envelope`,
    tidemark: attribute,
  });
}

/** @returns the schema text of `<topic>-key`, or null for a table without a key */
export function keySchema(shape: TableShape, topic: string): string | null {
  if (shape.keyColumns.length === 0) return null;
  const namespace = avroNamespace(topic);
  const columns = shape.keyColumns.map((i) => ({ ...shape.columns[i]!, nullable: false }));
  return JSON.stringify({
    type: 'record',
    name: 'Key',
    namespace,
    fields: columnFields({ ...shape, columns }),
    'connect.name': `${namespace}.Key`,
  });
}

function columnFields(shape: TableShape): unknown[] {
  const codecs = columnCodecs(shape);
  const taken = new Map<string, string>();
  let definedVariableScale = false;
  return shape.columns.map((column, i) => {
    const name = avroName(column.name);
    const other = taken.get(name);
    if (other !== undefined) {
      throw new TidemarkError('TM208', `columns ${other} and ${column.name} have the same Avro name ${name}`);
    }
    taken.set(name, column.name);
    let type = codecs[i]!.schema;
    // A named Avro type is defined once and referred to afterwards.
    if (usesVariableScale(type)) {
      if (definedVariableScale) type = referToVariableScale(type);
      definedVariableScale = true;
    }
    return column.nullable ? { name, type: ['null', type], default: null } : { name, type };
  });
}

function usesVariableScale(type: AvroSchema): boolean {
  return JSON.stringify(type).includes('"name":"VariableScaleDecimal"');
}

function referToVariableScale(type: AvroSchema): AvroSchema {
  if (typeof type === 'object' && !Array.isArray(type)) {
    if (type.name === 'VariableScaleDecimal') return variableScaleDecimalName;
    if (type.type === 'array') return { ...type, items: ['null', variableScaleDecimalName] };
  }
  return type;
}

const optionalLong = ['null', 'long'];

const sourceSchema = {
  type: 'record',
  name: 'Source',
  namespace: 'io.debezium.connector.postgresql',
  fields: [
    { name: 'version', type: 'string' },
    { name: 'connector', type: 'string' },
    { name: 'name', type: 'string' },
    { name: 'ts_ms', type: 'long' },
    {
      name: 'snapshot',
      type: [
        {
          type: 'string',
          'connect.version': 1,
          'connect.parameters': {
            allowed: 'true,first,first_in_data_collection,last_in_data_collection,last,false,incremental',
          },
          'connect.default': 'false',
          'connect.name': 'io.debezium.data.Enum',
        },
        'null',
      ],
      default: 'false',
    },
    { name: 'db', type: 'string' },
    { name: 'sequence', type: ['null', 'string'], default: null },
    { name: 'ts_us', type: optionalLong, default: null },
    { name: 'ts_ns', type: optionalLong, default: null },
    { name: 'schema', type: 'string' },
    { name: 'table', type: 'string' },
    { name: 'txId', type: optionalLong, default: null },
    { name: 'lsn', type: optionalLong, default: null },
    { name: 'xmin', type: optionalLong, default: null },
  ],
  'connect.version': 1,
  'connect.name': 'io.debezium.connector.postgresql.Source',
};

const transactionSchema = {
  type: 'record',
  name: 'block',
  namespace: 'event',
  fields: [
    { name: 'id', type: 'string' },
    { name: 'total_order', type: 'long' },
    { name: 'data_collection_order', type: 'long' },
  ],
  'connect.version': 1,
  'connect.name': 'event.block',
};

/**
 * The shape that a value schema carries.
 * @throws TidemarkError TM206 when the schema is not one of ours
 */
export function shapeOfSchema(schemaJson: string): TableShape {
  const attribute = (JSON.parse(schemaJson) as { tidemark?: ShapeAttribute }).tidemark;
  if (!attribute)
    throw new TidemarkError(
      'TM206',
      'a value schema carries no tidemark attribute: another program wrote to the topic',
    );
  const columns = attribute.columns.map(
    ({ name, type, key, enum: labels, protection }): ColumnShape => ({
      name,
      type,
      ...(labels ? { enum: labels } : {}),
      ...(protection ? { protection } : {}),
      key: key === true,
      nullable: key !== true,
    }),
  );
  const indexOf = (name: string) => columns.findIndex((column) => column.name === name);
  return {
    schema: attribute.schema,
    name: attribute.name,
    columns,
    keyColumns: attribute.key.map(indexOf),
    tenantColumn: attribute.tenant === null ? null : indexOf(attribute.tenant),
  };
}

/**
 * True where two schemas differ in nothing that the stream depends on. Enum labels are left out: a new label comes
 * without a Relation message, so the stream never claims to know them all.
 */
export function sameSchema(left: string, right: string): boolean {
  return canonical(JSON.parse(left)) === canonical(JSON.parse(right));
}

function canonical(node: unknown): string {
  return JSON.stringify(node, (key, value: unknown) => {
    if (key === 'labels' || key === 'allowed') return undefined;
    if (value && typeof value === 'object' && !Array.isArray(value)) {
      return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
    }
    return value;
  });
}
