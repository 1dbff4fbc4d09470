/**
 * `on.incompatible.change: text`: a column whose new type cannot follow the old one in the topic goes on as Postgres'
 * text. Its Avro field is a string; where the field of its name is known under another type, it gets one of its own and
 * the old one stays in the schema, always null: a reader of the newest schema then still reads older records whole, and
 * one that writes to a table leaves no stale value in the old field's column.
 */
import { sameText } from '../connector/recast.ts';
import type { ColumnShape, TableShape } from '../connector/shape.ts';
import { madeAnew, pairColumns } from '../connector/shape-versions.ts';
import type { Compatibility } from '../platform/resolved-config.ts';
import { readable } from './avro-readable.ts';
import { codecOf, fieldNames, sameForm, textFieldName } from './avro-schema.ts';
import { codecFor } from './types/catalogue.ts';
import type { AvroSchema } from './types/codec.ts';

/** A version, and its fields as they are registered. */
export interface KnownVersion {
  shape: TableShape;
  fields: ReadonlyMap<string, AvroSchema>;
}

/**
 * @param history every version so far, the one that comes before last
 * @param compatibility of the subject
 * @returns the shape with what must be carried as text, or null where there is nothing that text could help
 */
export function carryAsText(
  history: readonly KnownVersion[],
  shape: TableShape,
  compatibility: Compatibility,
): TableShape | null {
  const { shape: before, fields: registered } = history.at(-1)!;
  const anew = madeAnew(before, shape);
  const earlier = new Map(pairColumns(before, shape).kept.map(([old, column]) => [column, old]));
  const names = fieldNames(shape.columns);
  const known = history.map(({ fields }) => fields);
  const counting = compatibility.endsWith('_TRANSITIVE') ? known : known.slice(-1);
  let any = false;
  let columns = shape.columns;
  for (const [i, column] of shape.columns.entries()) {
    // A key must stay what it is: rows are told apart, and partitions chosen, by it.
    if (column.key || column.protection || column.carried) continue;
    const old = earlier.get(column);
    const own = codecOf(column).schema;
    const fits = counting.every((fields) => goesOn(fields.get(names[i]!) ?? own, own, compatibility));
    if (fits && (!old || anew || sameText(old, column))) continue;
    any = true;
    const asText = known.every((fields) => readable(fields.get(names[i]!) ?? 'string', 'string'));
    const field = asText ? {} : { field: textFieldName(column.name, columns) };
    const former = !asText && old?.name === column.name && !anew ? formerOf(before, old) : null;
    const stays = former && sameForm(registered.get(former.field), codecFor(former).schema);
    const carried = stays ? { ...field, former } : field;
    columns = columns.with(i, { ...column, form: 'text', carried });
  }
  return any ? { ...shape, columns } : null;
}

/** Whether a field may go on under another type. */
function goesOn(old: AvroSchema, schema: AvroSchema, compatibility: Compatibility): boolean {
  const forward = compatibility.startsWith('FORWARD') || compatibility.startsWith('FULL');
  return readable(old, schema) && (!forward || readable(schema, old));
}

function formerOf(shape: TableShape, column: ColumnShape) {
  const { type, base, form, enum: labels, extension, composite, range } = column;
  return {
    field: fieldNames(shape.columns)[shape.columns.indexOf(column)]!,
    type,
    ...(base === undefined ? {} : { base }),
    ...(form === undefined ? {} : { form }),
    ...(labels === undefined ? {} : { enum: labels }),
    ...(extension === undefined ? {} : { extension }),
    ...(composite === undefined ? {} : { composite }),
    ...(range === undefined ? {} : { range }),
  };
}

/** A column that is carried as text stays so. To Avro a rename is a drop and an add, also of the former field. */
export function stillCarried(old: ColumnShape, column: ColumnShape, shape: TableShape): Partial<ColumnShape> {
  if (!old.carried || column.key || column.protection) return {};
  if (old.name === column.name) return { form: 'text', carried: old.carried };
  const field = old.carried.field === undefined ? {} : { field: textFieldName(column.name, shape.columns) };
  return { form: 'text', carried: field };
}
