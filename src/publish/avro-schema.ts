/**
 * Avro schemas of a table: Debezium's envelope (Debezium 3.6, PostgreSQL connector, Confluent Avro converter), with
 * the table's own shape in `tidemark` attributes, so that a consumer can rebuild the shape from the registry alone.
 */
import type { CarriedText, ColumnShape, TableShape, TypeParts } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import { codecFor } from './types/catalogue.ts';
import type { AvroSchema, Codec } from './types/codec.ts';

interface ShapeAttribute {
  schema: string;
  name: string;
  columns: ({
    name: string;
    field?: string;
    key?: true;
    /** A key column that older versions had as nullable: its field stays so, or they could not be read. */
    nullable?: true;
  } & Pick<ColumnShape, 'type' | 'base' | 'form' | 'carried' | 'number' | 'missing' | 'protection'> &
    TypeParts)[];
  key: string[];
  tenant: string | null;
  oid?: number;
  /** Tells two versions of the same shape apart (a column renamed and renamed back). */
  version?: number;
  /** Counts the changes that older readers cannot follow. */
  major?: number;
}

/** Which version of a subject a schema is, beside its shape. */
export interface SchemaVersion {
  version: number;
  major: number;
}

/** Characters that Avro does not allow in a name become `_`; a leading digit gets one in front, nothing becomes one. */
export function avroName(name: string): string {
  const safe = name.replace(/[^A-Za-z0-9_]/g, '_');
  return /^([0-9]|$)/.test(safe) ? `_${safe}` : safe;
}

function avroNamespace(topic: string): string {
  return topic.split('.').map(avroName).join('.');
}

export function codecOf(column: ColumnShape): Codec {
  return codecFor(column);
}

/** Codecs of the shape's columns, in order, to decode with: the reader's own are in types/reader-codecs.ts. */
export function columnCodecs(shape: TableShape): Codec[] {
  return shape.columns.map((column) => codecFor(column));
}

/**
 * The columns' field names. Where two columns have the same Avro name the later gets a number behind it, the lowest
 * that gives no column's Avro name. A column that is carried as text keeps the field that it was given then.
 */
export function fieldNames(columns: readonly Pick<ColumnShape, 'name' | 'carried'>[]): string[] {
  const own = new Set(columns.map(({ name }) => avroName(name)));
  const taken = new Set(
    columns.flatMap(({ carried }) => [carried?.field ?? [], carried?.former?.field ?? []].flat()),
  );
  return columns.map(({ name, carried }) => {
    if (carried?.field) return carried.field;
    const field = freeName(avroName(name), taken, own);
    taken.add(field);
    return field;
  });
}

/** @param own names that no number may give */
function freeName(plain: string, taken: ReadonlySet<string>, own: ReadonlySet<string>): string {
  let field = plain;
  for (let number = 2; taken.has(field); number++) {
    field = `${plain}_${number}`;
    if (own.has(field)) field = plain;
  }
  return field;
}

/** The field of a column that is carried as text, beside the one of its name. */
export function textFieldName(name: string, columns: readonly ColumnShape[]): string {
  const others = columns.filter((column) => column.name !== name);
  const taken = new Set([
    ...fieldNames(others),
    ...others.flatMap(({ carried }) => carried?.former?.field ?? []),
  ]);
  return freeName(`${avroName(name)}__text`, taken, new Set());
}

/** Fields that hold nothing any more, at the end of each row. */
export function formerFields({ columns }: Pick<TableShape, 'columns'>): NonNullable<CarriedText['former']>[] {
  return columns.flatMap(({ carried }) => carried?.former ?? []);
}

/** Every field of a row and the Avro type in it, null aside. */
export function rowFields(shape: TableShape): Map<string, AvroSchema> {
  const names = fieldNames(shape.columns);
  const fields = new Map(columnCodecs(shape).map(({ schema }, i) => [names[i]!, schema]));
  for (const former of formerFields(shape)) fields.set(former.field, codecFor(former).schema);
  return fields;
}

/** @returns the schema text of `<topic>-value` */
export function valueSchema(shape: TableShape, topic: string, versions?: SchemaVersion): string {
  const namespace = avroNamespace(topic);
  const fields = fieldNames(shape.columns);
  const value = {
    type: 'record',
    name: 'Value',
    fields: columnFields(shape, fields, formerFields(shape)),
    'connect.name': `${namespace}.Value`,
  };
  const attribute: ShapeAttribute = {
    schema: shape.schema,
    name: shape.name,
    columns: shape.columns.map(({ name, type, key, nullable, ...rest }, i) => ({
      name,
      ...(fields[i] === avroName(name) || rest.carried?.field ? {} : { field: fields[i]! }),
      type,
      ...(key ? { key: true as const } : {}),
      ...rest,
      ...(key && nullable ? { nullable: true as const } : {}),
    })),
    key: shape.keyColumns.map((i) => shape.columns[i]!.name),
    tenant: shape.tenantColumn === null ? null : shape.columns[shape.tenantColumn]!.name,
    ...(shape.oid === undefined ? {} : { oid: shape.oid }),
    ...versions,
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
  const names = fieldNames(shape.columns);
  const columns = shape.keyColumns.map((i) => ({ ...shape.columns[i]!, nullable: false }));
  return JSON.stringify({
    type: 'record',
    name: 'Key',
    namespace,
    fields: columnFields(
      { ...shape, columns },
      shape.keyColumns.map((i) => names[i]!),
    ),
    'connect.name': `${namespace}.Key`,
  });
}

function columnFields(
  shape: TableShape,
  names: readonly string[],
  former: ReturnType<typeof formerFields> = [],
): unknown[] {
  const defined = new Set<string>();
  const nullable = (name: string, type: AvroSchema) => ({ name, type: ['null', type], default: null });
  const fields = columnCodecs(shape).map(({ schema }, i) => {
    const name = names[i]!;
    const type = definedOnce(schema, defined);
    return shape.columns[i]!.nullable ? nullable(name, type) : { name, type };
  });
  return [
    ...fields,
    ...former.map((each) => nullable(each.field, definedOnce(codecFor(each).schema, defined))),
  ];
}

/** A named Avro type is defined once and referred to afterwards. */
function definedOnce(type: AvroSchema, defined: Set<string>): AvroSchema {
  if (typeof type !== 'object' || Array.isArray(type)) return type;
  if (type.type === 'array') {
    return { ...type, items: ['null', definedOnce((type.items as AvroSchema[])[1]!, defined)] };
  }
  if (type.type !== 'record') return type;
  const name = `${type.namespace}.${type.name}`;
  if (defined.has(name)) return name;
  defined.add(name);
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
    ({ name, type, key, field: _, nullable, ...rest }): ColumnShape => ({
      name,
      type,
      ...rest,
      key: key === true,
      nullable: key !== true || nullable === true,
    }),
  );
  const indexOf = (name: string) => columns.findIndex((column) => column.name === name);
  return {
    schema: attribute.schema,
    name: attribute.name,
    columns,
    keyColumns: attribute.key.map(indexOf),
    tenantColumn: attribute.tenant === null ? null : indexOf(attribute.tenant),
    ...(attribute.oid === undefined ? {} : { oid: attribute.oid }),
  };
}

/** The fields of a row as a registered value schema has them, null aside: another Tidemark may have written it. */
export function registeredFields(schemaJson: string): Map<string, AvroSchema> {
  interface Field {
    name: string;
    type: AvroSchema;
  }
  const { fields } = JSON.parse(schemaJson) as { fields: Field[] };
  const before = fields.find(({ name }) => name === 'before')!.type as AvroSchema[];
  const row = before[1] as unknown as { fields: Field[] };
  const named = new Map<string, AvroSchema>();
  const whole = (type: AvroSchema): AvroSchema => {
    if (typeof type === 'string') return named.get(type) ?? type;
    if (Array.isArray(type)) return type.map(whole);
    if (type.type === 'array') return { ...type, items: whole(type.items as AvroSchema) };
    if (type.type === 'record') named.set(`${type.namespace}.${type.name}`, type);
    return type;
  };
  return new Map(
    row.fields.map(({ name, type }) => {
      const full = whole(type);
      return [name, Array.isArray(full) ? (full[1] as AvroSchema) : full];
    }),
  );
}

/** Whether two Avro types are the same in all that the stream depends on. */
export function sameForm(left: AvroSchema | undefined, right: AvroSchema): boolean {
  return left !== undefined && canonical(left) === canonical(right);
}

/** Schemas from before there were versions are version 1. */
export function versionOfSchema(schemaJson: string): SchemaVersion {
  const { version = 1, major = 1 } = (JSON.parse(schemaJson) as { tidemark?: ShapeAttribute }).tidemark ?? {};
  return { version, major };
}

/**
 * True where two schemas differ in nothing that the stream depends on. Enum labels and a composite's attributes are
 * left out: a new one comes without a Relation message, so the stream never claims to know them all.
 */
export function sameSchema(left: string, right: string): boolean {
  return canonical(JSON.parse(left)) === canonical(JSON.parse(right));
}

function canonical(node: unknown): string {
  return JSON.stringify(node, (key, value: unknown) => {
    if (key === 'labels' || key === 'allowed' || key === 'attributes') return undefined;
    if (value && typeof value === 'object' && !Array.isArray(value)) {
      return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
    }
    return value;
  });
}
