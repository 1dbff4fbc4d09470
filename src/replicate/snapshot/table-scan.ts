/** A table as its snapshot reads it: the columns that may leave Postgres, the order of its key, and the statements. */
import pg, { type ClientBase } from 'pg';
import { tableName } from '../../connector/shape.ts';
import { TidemarkError } from '../../platform/errors.ts';
import type { SourceConfig } from '../../platform/resolved-config.ts';
import { type CatalogueTable, columnPolicy, trackedTables } from '../catalogue.ts';
import type { Relation } from '../pgoutput.ts';
import { readSourceTypes, type SourceTypes } from '../source-types.ts';

export interface TableScan {
  table: CatalogueTable;
  /** As the stream would describe it, without the columns that the policy drops: those are not read. */
  relation: Relation;
  /** Columns of the relation that are read as text: nobody knows their binary form, or there is none. */
  text: boolean[];
  /** Key columns in the order of the index, so that a chunk is a range of it. */
  key: KeyColumn[];
  /** Where its rows lie, by file: another one after every rewrite. null: they lie in several. */
  file: string | null;
  /** Whether it can be read in the order on disk (physical-order.ts). */
  readsPhysically: boolean;
  /** Changes with whatever the above depends on. */
  fingerprint: string;
}

export interface KeyColumn {
  name: string;
  type: string;
  /** Its OID, or 0: part of the order. */
  collation: string;
  /** Its place in a cursor, which has the key in the order of the table's columns. */
  at: number;
  /**
   * The operators of ORDER BY, where they are not in pg_catalog. Found by name alone, under an empty search path, they
   * would be those of another type: citext would be compared as text, and rows would be passed over.
   */
  operators: { above: string; from: string } | null;
}

interface ColumnRow {
  name: string;
  oid: number;
  typmod: number;
  type: string;
  collation: string;
  /** Place in the index that tells rows apart; null for other columns, those that it only includes among them. */
  place: number | null;
  above: string | null;
  from: string | null;
  file: string | null;
}

/** Under FULL the primary key tells rows apart, as in the stream (catalogue.ts). */
const columnsQuery = (oid: number) => `
  select a.attname as name, a.atttypid::int8::text as oid, a.atttypmod as typmod,
         format_type(a.atttypid, a.atttypmod) as type, a.attcollation::int8::text as collation,
         array_position(k.columns, a.attnum) as place,
         c.relreplident as identity, pg_relation_filenode(c.oid)::int8::text as file, o.above, o."from"
    from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_type t on t.oid = a.atttypid
    left join lateral (
      select i.indkey[0:i.indnkeyatts - 1] as columns from pg_index i
       where i.indrelid = c.oid
         and case c.relreplident when 'i' then i.indisreplident when 'n' then false else i.indisprimary and i.indimmediate end
       limit 1) k on true
    left join lateral (
      select max(format('operator(%I.%s)', n.nspname, p.oprname)) filter (where s.amopstrategy = 5) as above,
             max(format('operator(%I.%s)', n.nspname, p.oprname)) filter (where s.amopstrategy = 4) as "from"
        from pg_opclass d join pg_am m on m.oid = d.opcmethod and m.amname = 'btree'
        join pg_amop s on s.amopfamily = d.opcfamily and s.amoplefttype = d.opcintype and s.amoprighttype = d.opcintype
        join pg_operator p on p.oid = s.amopopr join pg_namespace n on n.oid = p.oprnamespace
       where d.opcdefault and d.opcintype = coalesce(nullif(t.typbasetype, 0), t.oid) and n.nspname <> 'pg_catalog') o on true
   where a.attrelid = ${oid} and a.attnum > 0 and not a.attisdropped
   order by a.attnum`;

/** @throws TidemarkError TM221 for a table without a key; TM202 where it is not tracked (any more) */
export async function describeScan(
  client: ClientBase,
  source: SourceConfig,
  name: string,
  readsBinary: ReadsBinary,
): Promise<TableScan> {
  const scan = await describeTracked(client, source, name, readsBinary);
  if (scan.key.length === 0) throw keyless(name);
  return { ...scan, readsPhysically: await readsPhysically(client, scan.table.oid) };
}

/** The key is empty where there is none. @throws TidemarkError TM202 where the table is not tracked (any more) */
export async function describeTracked(
  client: ClientBase,
  source: SourceConfig,
  name: string,
  readsBinary: ReadsBinary,
): Promise<TableScan> {
  for (;;) {
    const table = (await trackedTables(client, source)).find((each) => tableName(each) === name);
    if (!table) {
      throw new TidemarkError('TM202', `${name} is not among the tables that source.tables selects`, {
        remedy: 'Add it to source.tables and start the reader again, or cancel the snapshot.',
      });
    }
    const columns = await readColumns(client, table.oid);
    // Altered between the two looks: a column renamed there would be taken for one that was dropped.
    if (!sameNames(table.columns, columns.rows)) continue;
    return describeTable(client, source, table, readsBinary, columns);
  }
}

function sameNames(left: readonly { name: string }[], right: readonly { name: string }[]): boolean {
  const names = new Set(left.map(({ name }) => name));
  return left.length === right.length && right.every(({ name }) => names.has(name));
}

/** Whether a column's binary form can be read, by its type. */
type ReadsBinary = (types: SourceTypes, typeOid: number) => boolean;

/**
 * Where an update may leave columns in TOAST, its row is not whole in the stream, and in the order on disk nobody knows
 * whether it was read: such tables are read by key. Ranges of addresses are read as such since Postgres 14.
 */
async function readsPhysically(client: ClientBase, oid: number): Promise<boolean> {
  const { rows } = await client.query<{ physical: boolean }>(
    `select current_setting('server_version_num')::int >= 140000 and c.relkind = 'r' and a.amname = 'heap'
            and (c.relreplident = 'f' or c.reltoastrelid = 0 or pg_relation_size(c.reltoastrelid) = 0) as physical
       from pg_class c left join pg_am a on a.oid = c.relam where c.oid = $1`,
    [oid],
  );
  return rows[0]?.physical ?? false;
}

/** The key is empty where there is none. */
export async function describeTable(
  client: ClientBase,
  source: SourceConfig,
  table: CatalogueTable,
  readsBinary: ReadsBinary,
  columns?: TableColumns,
): Promise<TableScan> {
  const { rows, fingerprint } = columns ?? (await readColumns(client, table.oid));
  const kept = rows.filter((row) => {
    const column = table.columns.find((each) => each.name === row.name);
    return column && !column.generated && columnPolicy(source, table, column) !== 'drop';
  });
  const keyRows = rows.filter(({ place }) => place !== null);
  const key = keyRows
    .toSorted((left, right) => left.place! - right.place!)
    .map((row) => ({
      name: row.name,
      type: row.type,
      collation: row.collation,
      at: keyRows.indexOf(row),
      operators: row.above && row.from ? { above: row.above, from: row.from } : null,
    }));
  const full = table.replicaIdentity === 'full';
  const types = await readSourceTypes(
    client,
    kept.map(({ oid }) => Number(oid)),
  );
  return {
    table,
    relation: {
      oid: table.oid,
      schema: table.schema,
      name: table.name,
      replicaIdentity: table.replicaIdentity,
      columns: kept.map((row) => ({
        name: row.name,
        typeOid: Number(row.oid),
        typmod: row.typmod,
        identity: full || row.place !== null,
      })),
    },
    text: kept.map(({ oid }) => types.get(Number(oid))?.sends === false || !readsBinary(types, Number(oid))),
    key,
    file: rows[0]?.file ?? null,
    readsPhysically: false,
    fingerprint,
  };
}

function keyless(name: string): TidemarkError {
  return new TidemarkError('TM221', `${name} has no key: it is read whole, not in chunks`);
}

export function conditionRefused(name: string): TidemarkError {
  return new TidemarkError(
    'TM221',
    `${name} has no key: its snapshot replaces it whole, and --where would lose the rest`,
    { remedy: `tidemark snapshot start ${name}` },
  );
}

export function destinationRefused(name: string): TidemarkError {
  return new TidemarkError(
    'TM221',
    `${name} has no key: its snapshot replaces it whole, in the stream that all destinations read`,
    { remedy: `tidemark snapshot start ${name}` },
  );
}

/** @returns whether the table is still what the scan says. Call it while the table is locked. */
export async function isUnchanged(client: ClientBase, scan: TableScan): Promise<boolean> {
  return (await readColumns(client, scan.table.oid)).fingerprint === scan.fingerprint;
}

/** As isUnchanged, for whoever sends several statements at once. */
export function unchangedCheck({ table, fingerprint }: TableScan) {
  return { query: columnsQuery(table.oid), holds: (rows: unknown[]) => fingerprintOf(rows) === fingerprint };
}

function fingerprintOf(columns: unknown[]): string {
  return JSON.stringify(columns);
}

interface TableColumns {
  rows: ColumnRow[];
  fingerprint: string;
}

async function readColumns(client: ClientBase, oid: number): Promise<TableColumns> {
  const { rows } = await client.query<ColumnRow>(columnsQuery(oid));
  return { rows, fingerprint: fingerprintOf(rows) };
}

/** `only`: an inheritance child is a table of its own in the stream; partitions are not. */
export function scanReference({ table }: Pick<TableScan, 'table'>): string {
  const name = `${pg.escapeIdentifier(table.schema)}.${pg.escapeIdentifier(table.name)}`;
  return table.kind === 'partitioned' ? name : `only ${name}`;
}

/** Rows after a key, in the key's order. @param after key values as Postgres' text; null: from the start */
export function rangeQuery(
  scan: TableScan,
  after: readonly string[] | null,
  condition: string | null,
  limit: number,
): string {
  const names = scan.key.map(({ name }) => pg.escapeIdentifier(name)).join(', ');
  const conditions = [...(after ? [afterKey(scan, after)] : []), ...(condition ? [`(${condition})`] : [])];
  const where = conditions.length > 0 ? ` where ${conditions.join(' and ')}` : '';
  return `select ${columnList(scan)} from ${scanReference(scan)}${where} order by ${names} limit ${limit}`;
}

/** The order of rows is the comparison of their keys as rows, which takes one name for the operators of all columns. */
function afterKey({ key }: TableScan, values: readonly string[]): string {
  const columns = key.map(({ name }) => pg.escapeIdentifier(name));
  if (key.every(({ operators }) => !operators))
    return `(${columns.join(', ')}) > (${literals({ key }, values)})`;
  return key.reduceRight((rest, column, i) => {
    const { above, from } = column.operators ?? { above: '>', from: '>=' };
    const value = literals({ key: [column] }, values);
    const greater = `${columns[i]} ${above} ${value}`;
    return rest === '' ? greater : `(${columns[i]} ${from} ${value} and (${greater} or ${rest}))`;
  }, '');
}

/** All rows. */
export function tableQuery(scan: Pick<TableScan, 'table' | 'relation' | 'text'>): string {
  return `select ${columnList(scan)} from ${scanReference(scan)}`;
}

/** The rows of certain keys. */
export function keysQuery(scan: TableScan, keys: readonly (readonly string[])[]): string {
  const names = scan.key.map(({ name }) => pg.escapeIdentifier(name)).join(', ');
  const list = keys.map((key) => `(${literals(scan, key)})`).join(', ');
  return `select ${columnList(scan)} from ${scanReference(scan)} where (${names}) in (${list})`;
}

export function columnList({ relation, text }: Pick<TableScan, 'relation' | 'text'>): string {
  return relation.columns
    .map(({ name }, i) => {
      const column = pg.escapeIdentifier(name);
      // format() prints by the output function, as the stream does; a cast prints some types otherwise.
      return text[i] ? `case when ${column} is not null then format('%s', ${column}) end` : column;
    })
    .join(', ');
}

function literals({ key }: Pick<TableScan, 'key'>, values: readonly string[]): string {
  return key.map(({ type, at }) => `${pg.escapeLiteral(values[at]!)}::${type}`).join(', ');
}

/**
 * An operator's condition is one expression: the extended protocol takes no second statement.
 * @throws TidemarkError TM224 where Postgres does not accept it
 */
export async function requireCondition(
  client: ClientBase,
  scan: TableScan,
  condition: string,
): Promise<void> {
  try {
    await client.query({
      text: `select 1 from ${scanReference(scan)} where (${condition}) and $1 limit 0`,
      values: [true],
    });
  } catch (error) {
    const { code } = error as { code?: string };
    throw new TidemarkError(
      'TM224',
      `Postgres does not accept the condition (SQLSTATE ${code ?? 'unknown'})`,
      {
        cause: error,
        remedy: 'Give --where an expression over the table’s columns, as after WHERE.',
      },
    );
  }
}

/** The planner's guess: known at once, also of a table that was never analyzed. */
export async function estimateRows(
  client: ClientBase,
  scan: TableScan,
  condition: string | null,
): Promise<number> {
  const where = condition ? ` where (${condition})` : '';
  const { rows } = await client.query(`explain (format json) select from ${scanReference(scan)}${where}`);
  return Math.round(Number(rows[0]['QUERY PLAN'][0].Plan['Plan Rows']));
}
