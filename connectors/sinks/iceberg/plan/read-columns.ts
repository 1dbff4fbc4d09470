/** Columns of data files in DuckDB, by field id (Iceberg specification, "Column Projection"). */
import type { DuckDBConnection } from '@duckdb/node-api';
import { quoteName, quoteText } from '../../../object-log/sql-text.ts';
import { duckdbType } from '../files/duckdb-type.ts';
import { type FieldMapping, namesOfField } from '../spec/name-mapping.ts';
import { formatDecimal } from '../spec/partition-path.ts';
import type { BoundPartitionField, PartitionTuple } from '../spec/partition-spec.ts';
import type { NestedField } from '../spec/schema.ts';
import { decimalParts, type PrimitiveType, typeKind, type Value } from '../spec/types.ts';
import { parquetColumns } from './parquet-columns.ts';

export interface LocalFile {
  localPath: string;
  partition: PartitionTuple;
  /** Of its partition spec. */
  fields: readonly BoundPartitionField[];
}

/** What a field is read as: the type may be one that its type in the file was promoted to. */
export type FieldColumn = Pick<NestedField, 'id' | 'type'>;

/** SQL that selects the fields, each under `columnName`, and `pos`, the row's position in the file. */
export async function selectFromFile(
  connection: DuckDBConnection,
  file: LocalFile,
  wanted: readonly FieldColumn[],
  mapping: readonly FieldMapping[],
): Promise<string> {
  const columns = await parquetColumns(connection, file.localPath);
  const ids = new Set(columns.map(({ id }) => id));
  const named = columns.every(({ id }) => id === null);
  const selected = wanted.map((field) => {
    const name = columnName(field.id);
    const known = named
      ? columns.find((each) => namesOfField(mapping, field.id).includes(each.name))
      : undefined;
    const value = ids.has(field.id) ? name : known ? quoteName(known.name) : partitionConstant(field, file);
    return `CAST(${value} AS ${duckdbType(field.type)}) AS ${name}`;
  });
  // By id also where a name means another column when case is ignored, as DuckDB does.
  const byId = wanted
    .filter(({ id }) => ids.has(id))
    .map(
      (field) =>
        `${field.id}: {name: ${quoteText(columnName(field.id))}, type: ${quoteText(duckdbType(field.type))}, default_value: NULL}`,
    );
  const schema = byId.length === 0 ? '' : `, schema => MAP {${byId.join(', ')}}`;
  return `SELECT ${[...selected, 'file_row_number AS pos'].join(', ')}
    FROM read_parquet(${quoteText(file.localPath)}, hive_partitioning => false, file_row_number => true${schema})`;
}

/** The name of a field's column in all tables and queries of DuckDB's; it needs no quotes. */
export function columnName(fieldId: number): string {
  return `c${fieldId}`;
}

/** Files of before the column have its value in their partition, or none. */
function partitionConstant(field: FieldColumn, { partition, fields }: LocalFile): string {
  const index = fields.findIndex(
    ({ sourceId, transform }) => sourceId === field.id && transform.kind === 'identity',
  );
  const value = index < 0 ? null : (partition[index] ?? null);
  return value === null ? 'NULL' : literal(fields[index]!.resultType, value);
}

/** SQL of a value. */
export function literal(type: PrimitiveType, value: Value): string {
  return `CAST(${plainLiteral(type, value)} AS ${duckdbType(type)})`;
}

function plainLiteral(type: PrimitiveType, value: Value): string {
  switch (typeKind(type)) {
    case 'date':
      return `(DATE '1970-01-01' + ${value})`;
    case 'time':
      return `(TIME '00:00:00' + to_microseconds(${value}))`;
    case 'timestamp':
      return `make_timestamp(${value})`;
    case 'timestamptz':
      return `make_timestamptz(${value})`;
    case 'fixed':
    case 'binary':
      return `unhex('${Buffer.from(value as Uint8Array).toString('hex')}')`;
    case 'decimal':
      return quoteText(formatDecimal(value as bigint, decimalParts(type)!.scale));
    case 'float':
    case 'double':
      return `'${Object.is(value, -0) ? '-0' : String(value)}'::DOUBLE`;
    default:
      return quoteText(String(value));
  }
}
