/** A table's next schema (Iceberg specification, "Schema Evolution"): what a column keeps is its field id. */
import { unsupported } from '../failures.ts';
import { highestFieldId, type NestedField, type Schema, sameSchema } from './schema.ts';
import { canPromote, type PrimitiveType } from './types.ts';

/** A column that the table shall have. */
export interface WantedColumn {
  name: string;
  /** Of the field that it goes on in, under whatever name that has now; absent: a new one. */
  fieldId?: number;
  type: PrimitiveType;
  required: boolean;
  doc?: string;
}

export interface EvolvedSchema {
  schema: Schema;
  lastColumnId: number;
  changed: boolean;
}

/**
 * The columns in their order, with fresh ids for new ones; fields that are not wanted are dropped, and their ids never
 * come back. A column that was optional stays so, as its files may have nulls, and a new one of a table with rows is.
 * @param lastColumnId of the table
 * @param identifiers names of the columns that tell rows apart; all of them required
 * @throws TidemarkError TM405 where a type cannot become the wanted one
 */
export function evolveSchema(
  current: Schema,
  lastColumnId: number,
  columns: readonly WantedColumn[],
  identifiers: readonly string[],
): EvolvedSchema {
  let lastId = Math.max(lastColumnId, highestFieldId(current));
  const byId = new Map(current.fields.map((field) => [field.id, field]));
  const fields = columns.map((column): NestedField => {
    const field = column.fieldId === undefined ? undefined : byId.get(column.fieldId);
    if (field) return { ...evolved(field, column), ...docOf(column) };
    lastId += 1;
    return { id: lastId, name: column.name, required: column.required, type: column.type, ...docOf(column) };
  });
  const schema: Schema = {
    type: 'struct',
    'schema-id': current['schema-id'],
    'identifier-field-ids': fields
      .filter(({ name, required }) => required && identifiers.includes(name))
      .map(({ id }) => id),
    fields,
  };
  return { schema, lastColumnId: lastId, changed: !sameSchema(current, schema) };
}

function evolved({ id, type, required }: NestedField, column: WantedColumn): NestedField {
  if (typeof type !== 'string' || !canPromote(type, column.type)) {
    throw unsupported(
      `column ${column.name} cannot become ${column.type}`,
      'Give the column a field of its own, or write the table anew.',
    );
  }
  return { id, name: column.name, required: required && column.required, type: column.type };
}

function docOf({ doc }: WantedColumn): { doc: string } | Record<string, never> {
  return doc === undefined ? {} : { doc };
}
