/**
 * Which field of an append-only table holds what of a Change: the columns that Tidemark adds, then the table's own, given
 * fields as in the files of an object log. A field is added and never changed, so no file is written anew. It is kept
 * as a table property, in the commit that changes it.
 */
import type { TableShape } from '../../../../src/connector/shape.ts';
import { assignFields, type FieldName, metadataColumns, storageOfField } from '../../../object-log/fields.ts';
import { historyWith } from '../../../object-log/manifest.ts';
import { storageOf } from '../../../object-log/storage.ts';
import { unsupported } from '../failures.ts';
import { icebergType } from '../merge/layout.ts';
import { highestFieldId, type NestedField, type Schema, sameSchema, type Type } from '../spec/schema.ts';

export const positionField = '_position';
export const ingestField = '_ingest_time';

const required = new Set(['_op', positionField, '_commit_time', ingestField]);
const types: Record<string, Type | 'texts'> = {
  VARCHAR: 'string',
  TIMESTAMPTZ: 'timestamptz',
  'VARCHAR[]': 'texts',
};

export interface ChangeLayout {
  shape: TableShape;
  fields: readonly FieldName[];
  /** Whether there are Changes of other columns. */
  reshaped: boolean;
  /** Field id by name, of all columns that are written here. */
  ids: Readonly<Record<string, number>>;
}

export interface NextChangeLayout {
  layout: ChangeLayout;
  schema: Schema;
  lastColumnId: number;
  schemaChanged: boolean;
}

/**
 * @param before null where no Window came into the table yet
 * @param since Position just before the first Change of this shape
 * @throws TidemarkError TM405
 */
export function nextChangeLayout(
  before: ChangeLayout | null,
  current: Schema,
  lastColumnId: number,
  shape: TableShape,
  since?: string,
): NextChangeLayout {
  const fields = assignFields(shape, before?.fields ?? [], since);
  let last = Math.max(lastColumnId, highestFieldId(current));
  const next = () => {
    last += 1;
    return last;
  };
  const all = [...current.fields];
  const ids = Object.create(null) as Record<string, number>;
  // Nested fields are numbered behind all others, as catalogs number them.
  const texts: NestedField[] = [];
  for (const { name, type, required } of wantedFields(fields)) {
    const known = current.fields.find((field) =>
      before?.ids[name] === undefined ? field.name === name : field.id === before.ids[name],
    );
    if (known) {
      if (!holds(known.type, type)) refuse(shape, known);
      ids[name] = known.id;
      continue;
    }
    const field: NestedField = {
      id: next(),
      name,
      // Files from before the column have nothing in it.
      required: required && current.fields.length === 0,
      type: type === 'texts' ? 'string' : type,
    };
    if (type === 'texts') texts.push(field);
    all.push(field);
    ids[name] = field.id;
  }
  for (const field of texts)
    field.type = { type: 'list', 'element-id': next(), 'element-required': true, element: 'string' };
  const written = new Set(Object.values(ids));
  for (const field of all) if (field.required && !written.has(field.id)) refuse(shape, field);
  const schema: Schema = { ...current, fields: all };
  const history = before && { ...before, uniform: true, encoder: '' };
  return {
    layout: { shape, fields, ids, reshaped: historyWith(history, '', [shape]).reshaped },
    schema,
    lastColumnId: last,
    schemaChanged: !sameSchema(current, schema),
  };
}

function* wantedFields(
  fields: readonly FieldName[],
): Iterable<{ name: string; type: Type | 'texts'; required: boolean }> {
  for (const [name, type] of metadataColumns)
    yield { name, type: types[type]!, required: required.has(name) };
  yield { name: ingestField, type: 'timestamptz', required: true };
  for (const field of fields)
    yield { name: field.field, type: icebergType(storageOfField(field, 'text', storageOf)), required: false };
}

function holds(type: Type, wanted: Type | 'texts'): boolean {
  if (wanted !== 'texts') return type === wanted;
  return typeof type === 'object' && type.type === 'list' && type.element === 'string';
}

function refuse({ schema, name }: TableShape, field: NestedField): never {
  throw unsupported(
    `${schema}.${name}: the Iceberg table has a column of somebody else’s, ${JSON.stringify(field.name)}, that is in the way`,
    'Rename or drop it in the Iceberg table, or give the destination another namespace.',
  );
}
