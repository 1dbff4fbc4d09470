/**
 * The replica's table from one shape to the next, as the source's own ALTER TABLE did it: inside the merge's
 * transaction, after the rows of the old shape and before those of the new one. Only columns that the old shape had are
 * touched.
 */
import { type TableShape, tableName } from '../../../src/connector/shape.ts';
import { madeAnew, pairColumns } from '../../../src/connector/shape-versions.ts';
import { emptyTable, type HouseColumns, inSource } from './house-columns.ts';
import { quoteName, quoteTable, quoteText, typeText } from './quote.ts';

/**
 * @param primaryKey name of the table's primary key constraint, or null where it has none
 * @param house rows that the source has no more stay, whatever becomes of the table: their columns are cast, not replaced
 */
export function evolveStatements(
  before: TableShape,
  after: TableShape,
  primaryKey: string | null,
  house: HouseColumns,
): string[] {
  const target = quoteTable(after);
  const alter = (what: string) => `ALTER TABLE ${target} ${what}`;
  const statements: string[] = [];
  const anew = madeAnew(before, after);
  // None of its rows is the new table's.
  if (anew) statements.push(emptyTable(target, house));
  const emptied = anew && inSource(house) === null;
  const pairs = pairColumns(before, after);
  // An empty column needs no cast, and two types may have none.
  const retyped = pairs.kept.filter(([old, column]) => old.type !== column.type);
  const replaced = new Set(emptied ? retyped.map(([, column]) => column) : []);
  const dropped = [
    ...pairs.dropped,
    ...retyped.filter(([, column]) => replaced.has(column)).map(([old]) => old),
  ];
  const kept = pairs.kept.filter(([, column]) => !replaced.has(column));
  const added = after.columns.filter((column) => replaced.has(column) || pairs.added.includes(column));

  const formerNames = new Map(kept.map(([old, column]) => [column.name, old.name]));
  const oldKey = before.keyColumns.map((i) => before.columns[i]!.name);
  const newKey = after.keyColumns.map((i) => after.columns[i]!.name);
  const rekeyed = oldKey.join('\0') !== newKey.map((name) => formerNames.get(name) ?? `\0${name}`).join('\0');
  if (rekeyed && oldKey.length > 0) {
    if (primaryKey !== null) statements.push(alter(`DROP CONSTRAINT ${quoteName(primaryKey)}`));
    for (const name of oldKey) statements.push(alter(`ALTER COLUMN ${quoteName(name)} DROP NOT NULL`));
  }
  for (const { name } of dropped) statements.push(alter(`DROP COLUMN ${quoteName(name)}`));
  statements.push(
    ...renameStatements(
      kept.map(([old, column]) => [old.name, column.name]),
      alter,
    ),
  );
  for (const [old, column] of kept) {
    if (old.type === column.type) continue;
    const name = quoteName(column.name);
    const type = typeText(after, column);
    const retype = (to: string, using: string) => alter(`ALTER COLUMN ${name} TYPE ${to} USING ${using}`);
    const plain = retype(type, `${name}::${type}`);
    statements.push(
      column.carried
        ? firstThatCasts(plain, retype(type, `${name}::text::${type}`), retype('text', `${name}::text`))
        : plain,
    );
  }
  for (const column of added) {
    const name = quoteName(column.name);
    const type = typeText(after, column);
    const missing = emptied ? undefined : column.missing;
    if (missing === undefined) statements.push(alter(`ADD COLUMN ${name} ${type}`));
    else {
      statements.push(alter(`ADD COLUMN ${name} ${type} DEFAULT ${quoteText(missing)}::${type}`));
      statements.push(alter(`ALTER COLUMN ${name} DROP DEFAULT`));
    }
  }
  if (rekeyed && newKey.length > 0) {
    const names = newKey.map(quoteName);
    if (house.deletedAt !== null) statements.push(withoutPlace(target, names, house.deletedAt));
    statements.push(alter(`ADD PRIMARY KEY (${names.join(', ')})`));
  }
  return statements;
}

/** Deleted rows that cannot stay under another key: without it, or with that of another row. */
function withoutPlace(target: string, key: readonly string[], deletedAt: string): string {
  const missing = key.map((name) => `a.${name} IS NULL`);
  const same = key.map((name) => `b.${name} = a.${name}`);
  return `DELETE FROM ${target} AS a WHERE a.${deletedAt} IS NOT NULL AND (${missing.join(' OR ')} OR EXISTS (
  SELECT FROM ${target} AS b WHERE ${same.join(' AND ')} AND b.ctid <> a.ctid
    AND (b.${deletedAt} IS NULL OR (b.${deletedAt}, b.ctid) > (a.${deletedAt}, a.ctid))))`;
}

/** The next statement is tried where a type has no cast to the other, or a value none that works. */
function firstThatCasts(first: string, second: string, last: string): string {
  const uncast = 'EXCEPTION WHEN cannot_coerce OR data_exception THEN';
  const body = `BEGIN ${first}; ${uncast} BEGIN ${second}; ${uncast} ${last}; END; END`;
  return `DO ${quoteText(body)}`;
}

/** By way of names that nobody has where a new name is another column's old one: two columns may swap theirs. */
function renameStatements(
  names: readonly (readonly [string, string])[],
  alter: (what: string) => string,
): string[] {
  const changed = names.filter(([from, to]) => from !== to);
  const taken = new Set(names.map(([from]) => from));
  const rename = (from: string, to: string) => alter(`RENAME COLUMN ${quoteName(from)} TO ${quoteName(to)}`);
  if (!changed.some(([, to]) => taken.has(to))) return changed.map(([from, to]) => rename(from, to));
  return [
    ...changed.map(([from], i) => rename(from, `_tidemark_renamed_${i}`)),
    ...changed.map(([, to], i) => rename(`_tidemark_renamed_${i}`, to)),
  ];
}

/** What the log says of it; names only. */
export function describeEvolution(before: TableShape, after: TableShape): Record<string, unknown> {
  const { kept, added, dropped } = pairColumns(before, after);
  return {
    table: tableName(after),
    added: added.map(({ name }) => name),
    dropped: dropped.map(({ name }) => name),
    renamed: kept
      .filter(([old, { name }]) => old.name !== name)
      .map(([old, { name }]) => `${old.name} to ${name}`),
    retyped: kept.filter(([old, { type }]) => old.type !== type).map(([, { name }]) => name),
  };
}
