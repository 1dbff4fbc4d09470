/** Kind `sqlite`: a replica in one SQLite file, its rows as JSON. The example of connectors/README.md. */
import { DatabaseSync } from 'node:sqlite';
import { TidemarkError } from '../../../src/connector/failure.ts';
import { RowHash } from '../../../src/connector/row-hash.ts';
import { madeAnew, pairColumns } from '../../../src/connector/shape-versions.ts';
import type * as Sdk from '../../../src/connector/sink.ts';

export const sqliteSink: Sdk.SinkKind = {
  name: 'sqlite',
  unit: 'destination',
  options: { 'sqlite.path': { type: 'string', description: 'The database file; its folder must exist.' } },
  check: (_context, options) =>
    inDatabase(options, async () => [
      { level: 'ok' as const, what: 'the database opens', remedy: null },
    ]).catch(({ message, remedy }: TidemarkError) => [{ level: 'error' as const, what: message, remedy }]),
  open: async ({ failpoint }, options): Promise<Sdk.MergeSink & Sdk.Readable> => ({
    mode: 'merge',
    held: (unit) => inDatabase(options, async (database) => heldOf(database, unit)?.held ?? null),
    mergeWindow: (window) =>
      inDatabase(options, async (database) => {
        const hash = new RowHash();
        for (const [part, table] of window.tables.entries()) await stage(database, part, table, hash);
        await failpoint('sqlite:staged');
        const receipt = commit(database, window, hash.hex);
        await failpoint('sqlite:committed');
        return receipt;
      }),
    async *readTable(shape, _at, retired) {
      const next =
        'SELECT rowid, cells, retired FROM rows WHERE tbl = ? AND rowid > ? ORDER BY rowid LIMIT 1000';
      for (let last = 0; ; ) {
        const rows = await inDatabase(options, async (database) =>
          database.prepare(next).all(nameOf(shape), last),
        );
        if (rows.length === 0) return;
        const apart = retired ? rows.filter((row) => row.retired === 1) : [];
        retired?.(apart.map(({ cells }) => parsed(cells)));
        yield rows.filter((row) => !apart.includes(row)).map(({ cells }) => parsed(cells));
        last = Number(rows.at(-1)!.rowid);
      }
    },
    close: async () => undefined,
  }),
};

const definitions = `
  CREATE TABLE IF NOT EXISTS held (unit TEXT PRIMARY KEY, sequence INT, token TEXT, receipt TEXT);
  CREATE TABLE IF NOT EXISTS shapes (tbl TEXT PRIMARY KEY, shape TEXT);
  CREATE TABLE IF NOT EXISTS rows (tbl TEXT, key TEXT, cells TEXT, position TEXT, retired INT);
  CREATE INDEX IF NOT EXISTS rows_by_key ON rows (tbl, key);
  CREATE TEMP TABLE staged (part INT, op TEXT, key TEXT, cells TEXT, fill TEXT, more TEXT)`;

/** For one piece of work. Closing it ends whatever transaction was open: all of a Window is there, or nothing. */
async function inDatabase<T>(
  options: Sdk.OptionValues,
  work: (database: DatabaseSync) => Promise<T>,
): Promise<T> {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(String(options['sqlite.path']));
    database.exec(definitions);
    return await work(database);
  } catch (error) {
    const { code, errcode } = error as { code?: unknown; errcode?: number };
    // Errors of the Window's own rows pass. A message of SQLite may quote a value: only its code is kept.
    if (code !== 'ERR_SQLITE_ERROR') throw error;
    const refused = [1, 18, 19, 20].includes(Number(errcode) & 0xff);
    throw new TidemarkError(refused ? 'TM405' : 'TM401', `SQLite failed with code ${errcode}`, {
      remedy: 'Look up the result code in SQLite’s manual, and at the file of sqlite.path.',
    });
  } finally {
    database?.close();
  }
}

const nameOf = ({ schema, name }: Sdk.TableId) => JSON.stringify([schema, name]);
const parsed = (text: unknown) => JSON.parse(String(text)) as Sdk.Row;
/** A value that is not known is a 0: cells are texts or null. */
const textOf = (row: Sdk.Cell[] | (Sdk.Cell | undefined)[]) =>
  JSON.stringify(row.map((cell) => (cell === undefined ? 0 : cell)));

/** Rows go into a temporary table, batch by batch: memory holds none of them. */
async function stage(database: DatabaseSync, part: number, table: Sdk.MergeTable, hash: RowHash) {
  const insert = database.prepare('INSERT INTO staged VALUES (?, ?, ?, ?, ?, ?)');
  const put = (op: string, key: string, cells: string | null, fill: string | null, more: object) => {
    insert.run(part, op, key, cells, fill, JSON.stringify(more));
    hash.add([op, key, cells]);
  };
  for await (const states of table.states()) {
    for (const state of states) {
      const { op, key, position } = state;
      if (op !== 'upsert') put(op, textOf(key), null, null, { position });
      else {
        const { values, fillFrom, retired, mayBeAbsent } = state;
        const fill = fillFrom && textOf(fillFrom);
        put(op, textOf(key), textOf(values), fill, { position, retired, mayBeAbsent });
      }
    }
  }
  for await (const counts of table.counts())
    for (const { values, count } of counts) put('count', textOf(values), `${count}`, null, { count });
}

function commit(database: DatabaseSync, window: Sdk.MergeWindow, contentHash: string): Sdk.Receipt {
  const { unit, sequence, from, to, fencingToken } = window;
  database.exec('BEGIN IMMEDIATE');
  const known = heldOf(database, unit);
  if (known && known.held.fencingToken > fencingToken)
    throw new TidemarkError('TM403', `${unit} has a newer worker`);
  const already = known !== null && sequence <= known.held.sequence && to <= known.held.position;
  if (!already && (sequence !== (known?.held.sequence ?? 0) + 1 || (known && from < known.held.position)))
    throw new TidemarkError('TM404', `Window ${sequence} of ${unit} does not follow what is held`);
  const receipt = already ? known.receipt : merge(database, window, contentHash);
  const save = database.prepare('INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?)');
  save.run(unit, already ? known.held.sequence : sequence, String(fencingToken), JSON.stringify(receipt));
  database.exec('COMMIT');
  return { ...receipt, alreadyHeld: already };
}

function heldOf(database: DatabaseSync, unit: string): { held: Sdk.Held; receipt: Sdk.Receipt } | null {
  const row = database.prepare('SELECT sequence, token, receipt FROM held WHERE unit = ?').get(unit);
  if (!row) return null;
  const receipt = JSON.parse(String(row.receipt)) as Sdk.Receipt;
  const { position } = receipt;
  return {
    held: { position, sequence: Number(row.sequence), fencingToken: BigInt(String(row.token)) },
    receipt,
  };
}

function merge(database: DatabaseSync, window: Sdk.MergeWindow, contentHash: string): Sdk.Receipt {
  for (const [part, table] of window.tables.entries()) mergeTable(database, part, table);
  const sweep = database.prepare('DELETE FROM rows WHERE tbl = ? AND position <= ? AND NOT retired');
  for (const { shape, since } of window.sweeps) sweep.run(nameOf(shape), since);
  const sums = `SELECT count(*) FILTER (WHERE op = 'upsert') AS upserted,
    total(max(more ->> 'count', 0)) AS appended, 1 + total(length(cells)) AS bytes,
    count(*) FILTER (WHERE op = 'delete') - total(min(more ->> 'count', 0)) AS deleted FROM staged`;
  const { bytes, ...rows } = database.prepare(sums).get() as Sdk.Receipt['rows'] & { bytes: number };
  const commitId = `${window.unit}/${window.sequence}`;
  return { position: window.to, rows, bytes, contentHash, commitId, alreadyHeld: false };
}

function mergeTable(database: DatabaseSync, part: number, { shape, truncated }: Sdk.MergeTable): void {
  const tbl = nameOf(shape);
  const prepare = (sql: string) => {
    const statement = database.prepare(sql.replace('$part', 'staged WHERE part = :part'));
    statement.setAllowUnknownNamedParameters(true);
    return statement;
  };
  const run = (sql: string, more = {}) => prepare(sql).run({ tbl, part, ...more });
  reshape(database, tbl, shape);
  database.function('filled', (cells, old) => old && fill(parsed(cells), parsed(old)));
  // What is not known comes from rows as they were before this part: they may change places in it.
  run(`UPDATE staged SET cells = filled(cells, (SELECT cells FROM rows WHERE tbl = :tbl AND key = fill))
    WHERE part = :part AND fill IS NOT NULL`);
  const lost = prepare(
    `SELECT 1 FROM $part AND fill <> '' AND cells IS NULL AND more ->> 'mayBeAbsent' IS NULL`,
  );
  if (lost.get({ part })) throw new TidemarkError('TM407', `${tbl} lacks a row that was updated`);
  run(`DELETE FROM $part AND fill <> '' AND cells IS NULL`);
  if (truncated) run('DELETE FROM rows WHERE tbl = :tbl AND NOT retired');
  run(`DELETE FROM rows WHERE tbl = :tbl AND key IN (SELECT key FROM $part AND op IN ('upsert', 'delete'))`);
  run(`INSERT INTO rows SELECT :tbl, key, cells, more ->> 'position', coalesce(more ->> 'retired', 0)
    FROM $part AND op = 'upsert'`);
  run(`UPDATE rows SET retired = 1 WHERE tbl = :tbl AND key IN (SELECT key FROM $part AND op = 'retire')`);
  const counts = prepare(`SELECT key, more ->> 'count' AS count FROM $part AND op = 'count'`).iterate({
    part,
  });
  for (const { key, count } of counts) {
    for (let copy = 0; copy < Number(count); copy += 1)
      run(`INSERT INTO rows VALUES (:tbl, :key, :key, '', 0)`, { key });
    const fewer = 'SELECT rowid FROM rows WHERE tbl = :tbl AND key = :key LIMIT :fewer';
    if (Number(count) < 0) run(`DELETE FROM rows WHERE rowid IN (${fewer})`, { key, fewer: -Number(count) });
  }
}

const fill = (cells: unknown[], old: unknown[]) =>
  JSON.stringify(cells.map((cell, i) => (cell === 0 ? old[i] : cell)));

/** Brings the rows that are there to the shape of those that come. */
function reshape(database: DatabaseSync, tbl: string, shape: Sdk.TableShape): void {
  const known = database.prepare('SELECT shape FROM shapes WHERE tbl = ?').get(tbl);
  database.prepare('INSERT OR REPLACE INTO shapes VALUES (?, ?)').run(tbl, JSON.stringify(shape));
  if (!known || known.shape === JSON.stringify(shape)) return;
  const before = JSON.parse(String(known.shape)) as Sdk.TableShape;
  if (madeAnew(before, shape)) database.prepare('DELETE FROM rows WHERE tbl = ?').run(tbl);
  const former = new Map(
    pairColumns(before, shape).kept.map(([old, column]) => [column, before.columns.indexOf(old)]),
  );
  const select = database.prepare(
    'SELECT rowid, cells FROM rows WHERE tbl = ? AND rowid > ? ORDER BY rowid LIMIT 1',
  );
  const update = database.prepare('UPDATE rows SET key = ?, cells = ? WHERE rowid = ?');
  for (let row = select.get(tbl, 0); row; row = select.get(tbl, row.rowid!)) {
    const old = parsed(row.cells);
    const cells = shape.columns.map((column) =>
      former.has(column) ? old[former.get(column)!]! : (column.missing ?? null),
    );
    const key = shape.keyColumns.length > 0 ? shape.keyColumns.map((i) => cells[i]!) : cells;
    update.run(textOf(key), textOf(cells), row.rowid!);
  }
}
