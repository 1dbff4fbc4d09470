/** An Iceberg table as an entry of the Glue Data Catalog: other engines find it by these parameters and columns. */
import type { Column, Table, TableInput } from '@aws-sdk/client-glue';
import type { TableMetadata } from './catalog.ts';
import { isObject, type Json } from './exact-json.ts';

export const metadataLocationParameter = 'metadata_location';
const previousLocationParameter = 'previous_metadata_location';

/** Null where the entry is no Iceberg table. */
export function metadataLocationOf(table: Table): string | null {
  const parameters = table.Parameters ?? {};
  if (parameters.table_type?.toUpperCase() !== 'ICEBERG') return null;
  return parameters[metadataLocationParameter] ?? null;
}

/** @param known the entry as it is; what this side does not set stays */
export function tableInput(
  name: string,
  metadata: TableMetadata,
  metadataLocation: string,
  known: Table | null,
): TableInput {
  const previous = known?.Parameters?.[metadataLocationParameter];
  return {
    Name: name,
    TableType: 'EXTERNAL_TABLE',
    ...(known?.Description === undefined ? {} : { Description: known.Description }),
    ...(known?.Owner === undefined ? {} : { Owner: known.Owner }),
    Parameters: {
      ...known?.Parameters,
      table_type: 'ICEBERG',
      [metadataLocationParameter]: metadataLocation,
      ...(previous === undefined ? {} : { [previousLocationParameter]: previous }),
    },
    StorageDescriptor: { Location: metadata.location, Columns: columnsOf(metadata) },
  };
}

/** Columns of the current schema, for what only looks at Glue; engines take them from the metadata. */
function columnsOf(metadata: TableMetadata): Column[] {
  const schemas = Array.isArray(metadata.schemas) ? metadata.schemas : [];
  const current = schemas.find(
    (each) => isObject(each) && each['schema-id'] === metadata['current-schema-id'],
  );
  const fields = isObject(current) && Array.isArray(current.fields) ? current.fields : [];
  return fields.filter(isObject).map((field) => ({
    Name: String(field.name),
    Type: hiveType(field.type),
    Parameters: {
      'iceberg.field.id': String(field.id),
      'iceberg.field.optional': String(field.required !== true),
      'iceberg.field.current': 'true',
    },
  }));
}

const hiveTypes: Record<string, string> = {
  boolean: 'boolean',
  int: 'int',
  long: 'bigint',
  float: 'float',
  double: 'double',
  date: 'date',
  timestamp: 'timestamp',
  timestamptz: 'timestamp',
  binary: 'binary',
};

/** Hive's name of an Iceberg type; `string` for what Hive has not. */
function hiveType(type: Json | undefined): string {
  if (typeof type === 'string') {
    if (type.startsWith('decimal')) return type.replaceAll(' ', '');
    return type.startsWith('fixed') ? 'binary' : (hiveTypes[type] ?? 'string');
  }
  if (!isObject(type)) return 'string';
  if (type.type === 'list') return `array<${hiveType(type.element)}>`;
  if (type.type === 'map') return `map<${hiveType(type.key)},${hiveType(type.value)}>`;
  const fields = Array.isArray(type.fields) ? type.fields.filter(isObject) : [];
  return `struct<${fields.map((field) => `${field.name}:${hiveType(field.type)}`).join(',')}>`;
}
