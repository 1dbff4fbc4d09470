/** Whether a table that the destination has can be merged into: each difference with the statement that mends it. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { sameText } from '../../../src/connector/recast.ts';
import { type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { ExistingTable, TablesOwner } from './existing-tables.ts';
import { retiredColumn } from './house-columns.ts';
import type { Placement } from './placement.ts';
import { canonicalType, quoteName, quoteTable, typeText } from './quote.ts';

export function refused(shape: TableShape, what: string, remedy: string): TidemarkError {
  return new TidemarkError('TM405', `${tableName(shape)} ${what}`, { remedy });
}

export function keyNames(shape: TableShape): string[] {
  return shape.keyColumns.map((i) => shape.columns[i]!.name);
}

/**
 * Somebody allows fewer numbers, each as it is: what is too large is refused row by row. Other narrower types would cut or
 * round without a word.
 */
export function isNarrower(existing: string, wanted: string): boolean {
  const numbers = /^(smallint|integer|bigint|numeric\(.*\))$/;
  if (existing === wanted || !numbers.test(existing) || !numbers.test(wanted)) return false;
  const column = { name: '', key: false, nullable: true };
  return sameText({ ...column, type: existing }, { ...column, type: wanted });
}

/** @throws TidemarkError TM404, TM405 */
export function checkOwner(
  shape: TableShape,
  found: ExistingTable,
  owner: TablesOwner,
  placement: Placement,
): void {
  if (shape.schema === '_tidemark') {
    throw refused(
      shape,
      'would stand among what the destination keeps for itself',
      'Give its schema another name with schema.map (`_tidemark=tidemark_of_the_source`), or leave the table out of `tables`.',
    );
  }
  if (found.elsewhere !== null) {
    throw refused(
      shape,
      `was merged into ${found.elsewhere} before; now it would begin empty`,
      `Set schema.map back; or move the table and its types (ALTER TABLE … SET SCHEMA, ALTER TYPE … SET SCHEMA) and its row in _tidemark.tables (schema_name, table_name).`,
    );
  }
  if (!found.owner) return;
  const { sourceId, destination, source, history } = found.owner;
  if (sourceId !== owner.sourceId || destination !== owner.destination) {
    throw refused(
      shape,
      `already belongs to destination ${destination} of source ${sourceId}`,
      'Give each destination a database of its own, or tables that no other one has.',
    );
  }
  if (history) {
    throw refused(
      shape,
      `has the name of the history of ${tableName(source)}`,
      'Set history.suffix to another ending after renaming the history table and its row in _tidemark.tables, or give this table another place in schema.map.',
    );
  }
  const own = placement.sourceOf(shape);
  if (quoteTable(source) !== quoteTable(own)) throw placement.clash(own, source, shape);
  if (found.kind === null) {
    throw new TidemarkError(
      'TM404',
      `${tableName(shape)} was merged before and is gone from the destination`,
    );
  }
}

/** @throws TidemarkError TM405 at the first difference */
export function compareTable(shape: TableShape, found: ExistingTable): void {
  const target = quoteTable(shape);
  // Row addresses are unique within one plain table only, and tables without a key are found by them.
  if (found.kind !== 'r' && !(found.kind === 'p' && shape.keyColumns.length > 0)) {
    throw refused(shape, 'exists, but is not a plain table', `Rename or drop ${target} in the destination.`);
  }
  const columns = new Map(found.columns.map((column) => [column.name, column]));
  columns.delete(retiredColumn);
  if (found.deletedAt !== null) columns.delete(found.deletedAt);
  for (const [i, column] of shape.columns.entries()) {
    const name = JSON.stringify(column.name);
    const type = canonicalType(typeText(shape, column));
    const existing = columns.get(column.name);
    columns.delete(column.name);
    if (!existing) {
      throw refused(
        shape,
        `lacks column ${name}`,
        `ALTER TABLE ${target} ADD COLUMN ${quoteName(column.name)} ${type};`,
      );
    }
    const alter = `ALTER TABLE ${target} ALTER COLUMN ${quoteName(column.name)}`;
    const other = canonicalType(existing.type) !== type && !(column.carried && existing.type === 'text');
    if (other && !isNarrower(existing.type, type)) {
      throw refused(
        shape,
        `has column ${name} as ${existing.type}, the source has ${type}`,
        `${alter} TYPE ${type};`,
      );
    }
    if (existing.generated) {
      throw refused(shape, `computes column ${name} itself`, `${alter} DROP EXPRESSION; or DROP IDENTITY;`);
    }
    if (existing.notNull && !shape.keyColumns.includes(i)) {
      throw refused(shape, `allows no NULL in column ${name}`, `${alter} DROP NOT NULL;`);
    }
  }
  for (const name of columns.keys()) {
    throw refused(
      shape,
      `has a column ${JSON.stringify(name)} that the source has not`,
      `ALTER TABLE ${target} DROP COLUMN ${quoteName(name)};`,
    );
  }
  if (shape.keyColumns.length === 0) return;
  const key = keyNames(shape);
  const usable = found.uniqueKeys.some(
    (unique) => unique.length === key.length && key.every((name) => unique.includes(name)),
  );
  if (!usable) {
    throw refused(
      shape,
      'has no primary key on the key columns',
      `ALTER TABLE ${target} ADD PRIMARY KEY (${key.map(quoteName).join(', ')});`,
    );
  }
}
