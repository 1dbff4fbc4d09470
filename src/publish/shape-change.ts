/**
 * What lies between two versions of a table's shape, in words, and what of it breaks: for older readers of the topic
 * (Avro's schema resolution), or for existing rows in destinations, whose new values are not in the stream. The
 * registry is asked too, but a registry may say no more than no.
 */
import { sameText } from '../connector/recast.ts';
import type { ColumnShape, TableShape } from '../connector/shape.ts';
import { madeAnew, pairColumns } from '../connector/shape-versions.ts';
import type { ColumnOrigin } from '../replicate/column-origins.ts';
import { protectionLabel } from '../replicate/column-protection.ts';
import { avroText, readable } from './avro-readable.ts';
import { codecOf, fieldNames, rowFields, sameForm } from './avro-schema.ts';
import type { AvroSchema } from './types/codec.ts';

export interface ShapeChange {
  /** Everything that is different; names only. */
  changes: string[];
  /** The part that older readers of the topic cannot follow. */
  breaksReaders: string[];
  /** The part whose effect on existing rows the stream does not tell. */
  breaksRows: string[];
  /** The part of breaksRows that is another type: destinations can cast what they have. */
  casts: string[];
}

/** What is known of a change beside the two shapes. */
export interface ChangeContext {
  /** Of the new version's columns, by name, as far as known. */
  origins: ReadonlyMap<string, Pick<ColumnOrigin, 'computed' | 'missing'>>;
  /** The table was made by a statement in the stream: it had no rows before. */
  made: boolean;
  /** The earlier version's fields as they are registered, where another Tidemark may have written them otherwise. */
  fields?: ReadonlyMap<string, AvroSchema>;
}

export function compareShapes(
  before: TableShape,
  after: TableShape,
  { origins, made, fields = rowFields(before) }: ChangeContext,
): ShapeChange {
  const change: ShapeChange = { changes: [], breaksReaders: [], breaksRows: [], casts: [] };
  const { changes } = change;
  const breaks = (what: 'breaksReaders' | 'breaksRows', text: string) => {
    changes.push(text);
    change[what].push(text);
  };
  const anew = madeAnew(before, after);
  if (anew && made) changes.push('the table was dropped and made anew');
  else if (anew) {
    breaks('breaksRows', 'another table took the name, and whether it had rows before is not in the stream');
  }
  const { kept, added, dropped } = pairColumns(before, after);
  const unreadable = unreadableFields(fields, after);
  const names = fieldNames(after.columns);
  const reformed = (column: ColumnShape) => {
    const registered = fields.get(names[after.columns.indexOf(column)]!);
    return registered !== undefined && !sameForm(registered, codecOf(column).schema);
  };
  for (const [old, column] of kept) {
    if (old.name !== column.name) changes.push(`column ${old.name} renamed to ${column.name}`);
    const why = unreadable.get(column);
    if (protectionText(old) !== protectionText(column)) {
      const text = `column ${column.name} is ${protectionText(column)}, was ${protectionText(old)}`;
      breaks('breaksRows', `${text}: existing rows in destinations have it as it was`);
    }
    if (old.type !== column.type) {
      const text = `column ${column.name} changed from ${old.type} to ${column.type}`;
      if (why) breaks('breaksReaders', `${text}: ${why}`);
      else if (!anew && !sameText(old, column)) {
        const other = `${text}: existing rows got other values by it, which are not in the stream`;
        breaks('breaksRows', other);
        change.casts.push(other);
      } else changes.push(text);
    } else if (why && old.name !== column.name) breaks('breaksReaders', `column ${column.name}: ${why}`);
    else if (why) breaks('breaksReaders', `${otherForm(column)}: ${why}`);
    else if (reformed(column)) changes.push(otherForm(column));
    else if (labelsOf(old) !== labelsOf(column)) changes.push(`labels of ${column.type} changed`);
    if (column.carried && !old.carried) changes.push(`column ${column.name} is carried as text from now on`);
  }
  for (const column of added) {
    const text = `column ${column.name} added`;
    const why = unreadable.get(column);
    if (why) breaks('breaksReaders', `${text} where one of the name was dropped: ${why}`);
    else if (anew) changes.push(text);
    else if (!origins.has(column.name))
      breaks(
        'breaksRows',
        `${text}: the catalogue has moved on since, so what existing rows have in it is not known`,
      );
    else if (column.protection && origins.get(column.name)!.missing !== null)
      breaks('breaksRows', `${text}: it is ${protectionText(column)}, and existing rows got a default`);
    else if (origins.get(column.name)!.computed && column.missing === undefined)
      breaks(
        'breaksRows',
        `${text}: its default was worked out row by row, so what existing rows have in it is not known`,
      );
    else changes.push(text);
  }
  for (const column of dropped) changes.push(`column ${column.name} dropped`);
  if (!anew && added.length > 0 && dropped.some(({ number }) => number === undefined))
    breaks('breaksRows', 'whether a column was renamed is not known: its number is not');
  const [oldKey, newKey] = [keyText(before), keyText(after)];
  if (oldKey !== newKey) {
    const text = `the key changed from (${oldKey}) to (${newKey})`;
    // A table that had no key has no key subject to break, and one that loses it writes no keys.
    if (before.keyColumns.length > 0 && after.keyColumns.length > 0)
      breaks('breaksReaders', `${text}: older readers cannot read the new keys`);
    else changes.push(text);
  }
  const [oldTenant, newTenant] = [tenantText(before), tenantText(after)];
  if (oldTenant !== newTenant) changes.push(`the tenant column changed from ${oldTenant} to ${newTenant}`);
  if (changes.length === 0)
    changes.push(
      orderOf(before) === orderOf(after) ? "the columns' numbers are known now" : 'columns reordered',
    );
  return change;
}

/** The table did not change: Tidemark did. */
function otherForm({ name, type }: ColumnShape): string {
  return `nothing in Postgres, but Tidemark's form of ${type} (column ${name}) is another since an upgrade`;
}

function tenantText({ columns, tenantColumn }: TableShape): string {
  return tenantColumn === null ? 'none' : columns[tenantColumn]!.name;
}

function keyText({ columns, keyColumns }: TableShape): string {
  return keyColumns.map((i) => columns[i]!.name).join(', ');
}

function orderOf(shape: TableShape): string {
  return JSON.stringify(shape.columns.map(({ name }) => name));
}

function protectionText({ protection }: ColumnShape): string {
  return protection ? `${protectionLabel(protection)} of ${protection.of}` : 'kept';
}

function labelsOf(column: ColumnShape): string {
  return JSON.stringify(column.enum?.labels ?? null);
}

/** Of the columns whose Avro field was known under a type that does not resolve to theirs: why. */
function unreadableFields(
  known: ReadonlyMap<string, AvroSchema>,
  after: TableShape,
): Map<ColumnShape, string> {
  const names = fieldNames(after.columns);
  const found = new Map<ColumnShape, string>();
  for (const [i, column] of after.columns.entries()) {
    const old = known.get(names[i]!);
    const { schema } = codecOf(column);
    if (old !== undefined && !readable(old, schema))
      found.set(column, `Avro cannot read ${avroText(old)} as ${avroText(schema)}`);
  }
  return found;
}
