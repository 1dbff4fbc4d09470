/** The columns of a data file: their names in it, and their field ids, by which readers know them. */
import { quoteName, quoteText } from '../../../object-log/sql-text.ts';
import { childFields, type NestedField, type Schema } from '../spec/schema.ts';
import { duckdbType } from './duckdb-type.ts';

export interface FileColumn {
  field: NestedField;
  /** The field's own name, unless DuckDB takes it for another's: it ignores case. */
  name: string;
  duckdbType: string;
}

export function fileColumns({ fields }: Schema): FileColumn[] {
  const taken = new Set<string>();
  return fields.map((field) => {
    let name = field.name;
    while (taken.has(name.toLowerCase())) name = `${name}~${field.id}`;
    taken.add(name.toLowerCase());
    return { field, name, duckdbType: duckdbType(field.type) };
  });
}

/** FIELD_IDS of COPY. */
export function fieldIds(columns: readonly FileColumn[]): string {
  return `{${columns.map(({ field, name }) => fieldId(field, name)).join(', ')}}`;
}

function fieldId({ id, type }: NestedField, name: string): string {
  const children = childFields(type);
  if (children.length === 0) return `${quoteText(name)}: ${id}`;
  const inner = children.map((child) => fieldId(child, child.name));
  return `${quoteText(name)}: {__duckdb_field_id: ${id}, ${inner.join(', ')}}`;
}

/** SQL that gives a field's value; null: it has none, and the column is empty. */
export type ColumnSource = (field: NestedField) => string | null;

/** The relation has a column of every field's name. */
export const columnByName: ColumnSource = ({ name }) => quoteName(name);

/** What a file's rows are selected with. */
export function selectColumns(columns: readonly FileColumn[], source: ColumnSource): string {
  return columns
    .map(
      ({ field, name, duckdbType: type }) =>
        `CAST(${source(field) ?? 'NULL'} AS ${type}) AS ${quoteName(name)}`,
    )
    .join(', ');
}
