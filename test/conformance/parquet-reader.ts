/**
 * What a stranger with DuckDB sees of a folder of the kind `parquet`: the rows that `_latest.sql` gives, and the Changes
 * in the files that the manifests name. Nothing of the sink is used but its spelling of floats, which its own test
 * compares with Postgres.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import { postgresFloat } from '../../connectors/object-log/postgres-float.ts';
import { type TableShape, unitName } from '../../src/connector/shape.ts';
import type { Cell, Row, RowEvent } from '../../src/connector/sink.ts';
import type { SeenEvent } from './subject.ts';

const quote = (name: string) => `"${name.replaceAll('"', '""')}"`;
const quoteText = (text: string) => `'${text.replaceAll("'", "''")}'`;

/** @param folder of all tables */
export async function latestRows(folder: string, shape: TableShape): Promise<Row[]> {
  const table = await tableFolder(folder, shape);
  if (table === null) return [];
  const script = await readFile(join(table, '_latest.sql'), 'utf8');
  // As it says itself: where the folder is a copy, this line is to be corrected.
  const moved = script.replace(/^SET VARIABLE tidemark_base = .*$/m, () => {
    return `SET VARIABLE tidemark_base = ${quoteText(`${table}/`)};`;
  });
  const fields = await fieldsOf(table, shape);
  return inDuckdb((connection) => rowsOfScript(connection, moved, shape, fields));
}

/** @param fields of the shape's columns */
export async function rowsOfScript(
  connection: DuckDBConnection,
  script: string,
  shape: TableShape,
  fields: readonly string[],
): Promise<Row[]> {
  await makeViews(connection, script);
  const columns = (await describe(connection, 'tidemark_latest')).slice(0, shape.columns.length);
  const names = columns.map(({ name }, i) => `${asText(`l.${quote(name)}`, columns[i]!.type)} AS c${i}`);
  const exact = `SELECT "_position", any_value("_exact") AS exact FROM tidemark_changes WHERE "_op" <> 'd' GROUP BY ALL`;
  const rows = await allRows(
    connection,
    `SELECT ${[...names, 'e.exact'].join(', ')} FROM tidemark_latest l LEFT JOIN (${exact}) e USING ("_position")`,
  );
  return rows.map((row) => {
    const others = JSON.parse((row.pop() as string | null) ?? '{}') as Record<string, string>;
    return row.map((value, i): Cell => {
      const cell = spelled(value, columns[i]!.type);
      const field = fields[i]!;
      return cell === null && Object.hasOwn(others, field) ? others[field]! : cell;
    });
  });
}

export async function changes(folder: string, shape: TableShape): Promise<SeenEvent[]> {
  const table = await tableFolder(folder, shape);
  if (table === null) return [];
  const seen: SeenEvent[] = [];
  await inDuckdb(async (connection) => {
    const written = await manifests(table);
    // The newest one has the fields of all, under the names of today.
    const { fields } = written.at(-1)!;
    for (const { files } of written) {
      const window: { order: string; event: SeenEvent }[] = [];
      for (const { path } of files) {
        const file = `read_parquet(${quoteText(join(table, path))}, hive_partitioning => false)`;
        const columns = await describe(connection, file);
        const names = columns.map(({ name, type }) => `${asText(quote(name), type)} AS ${quote(name)}`);
        for (const values of await allRows(connection, `SELECT ${names.join(', ')} FROM ${file}`)) {
          const cells = new Map(columns.map(({ name, type }, i) => [name, spelled(values[i], type)]));
          const event = eventOf(cells, fields, shape);
          // A key change has its delete and its create at one Position.
          window.push({ order: `${event.position}${event.op === 'd' ? 0 : 1}`, event });
        }
      }
      window.sort((a, b) => (a.order < b.order ? -1 : 1));
      seen.push(...window.map(({ event }) => event));
    }
  });
  return seen;
}

/** @param cells by field; lists in JSON */
export function eventOf(
  cells: ReadonlyMap<string, Cell>,
  fields: readonly Field[],
  shape: TableShape,
): SeenEvent {
  const op = cells.get('_op') as RowEvent['op'];
  const unchanged = JSON.parse(cells.get('_unchanged') ?? '[]') as string[];
  const exact = JSON.parse(cells.get('_exact') ?? '{}') as Record<string, string>;
  const values: Record<string, Cell> = Object.create(null) as Record<string, Cell>;
  for (const { name } of shape.columns) {
    const field = fieldsOfColumn(fields, name).find((each) => cells.has(each));
    if (field === undefined || unchanged.includes(field)) continue;
    values[name] = Object.hasOwn(exact, field) ? exact[field]! : cells.get(field)!;
  }
  const rowless = op === 't' || op === 's';
  const key = rowless ? [] : shape.keyColumns.map((i) => values[shape.columns[i]!.name] ?? null);
  return { op, position: cells.get('_position')!, key, values: rowless || op === 'e' ? {} : values };
}

export interface Field {
  name: string;
  field: string;
  /** The one that the column had before, under another type. */
  earlier?: string;
}

/** The newest first. */
export function fieldsOfColumn(fields: readonly Field[], name: string): string[] {
  const found: string[] = [];
  let next = fields.findLast((each) => each.name === name);
  while (next) {
    found.push(next.field);
    const { earlier } = next;
    next = fields.find(({ field }) => field === earlier);
  }
  return found;
}

interface Manifest {
  unit: string;
  files: { path: string }[];
  fields: Field[];
}

async function manifests(table: string): Promise<Manifest[]> {
  const folder = join(table, '_manifests');
  const names = (await readdir(folder)).filter((name) => name.endsWith('.json')).sort();
  return Promise.all(
    names.map(async (name) => JSON.parse(await readFile(join(folder, name), 'utf8')) as Manifest),
  );
}

/** Each manifest says whose it is; null where the table has none. */
async function tableFolder(folder: string, shape: TableShape): Promise<string | null> {
  for (const name of await readdir(folder).catch(() => [])) {
    const found = await manifests(join(folder, name)).catch(() => []);
    if (found[0]?.unit === unitName(shape)) return join(folder, name);
  }
  return null;
}

async function fieldsOf(table: string, shape: TableShape): Promise<string[]> {
  const { fields } = (await manifests(table)).at(-1)!;
  return shape.columns.map(({ name }) => fieldsOfColumn(fields, name)[0] ?? name);
}

let instance: Promise<DuckDBInstance> | undefined;

/** Each time in a session of its own. */
export async function inDuckdb<T>(work: (connection: DuckDBConnection) => Promise<T>): Promise<T> {
  instance ??= DuckDBInstance.create(':memory:', { threads: '1' });
  const connection = await (await instance).connect();
  try {
    await connection.run("SET TimeZone = 'UTC'");
    return await work(connection);
  } finally {
    connection.closeSync();
  }
}

/** All but the last statement, which gives the rows as they are typed. */
async function makeViews(connection: DuckDBConnection, script: string): Promise<void> {
  const statements = await connection.extractStatements(script);
  for (let i = 0; i < statements.count - 1; i += 1) await (await statements.prepare(i)).run();
}

async function allRows(connection: DuckDBConnection, sql: string): Promise<unknown[][]> {
  return (await connection.runAndReadAll(sql)).getRows() as unknown[][];
}

async function describe(
  connection: DuckDBConnection,
  from: string,
): Promise<{ name: string; type: string }[]> {
  const rows = await allRows(connection, `DESCRIBE FROM ${from}`);
  return rows.map(([name, type]) => ({ name: name as string, type: type as string }));
}

/** As Postgres prints the value, but for floats. */
function asText(column: string, type: string): string {
  if (type === 'FLOAT' || type === 'DOUBLE') return column;
  if (type === 'BOOLEAN') return `CASE ${column} WHEN true THEN 't' WHEN false THEN 'f' END`;
  if (type === 'BLOB') return `'\\x' || lower(hex(${column}))`;
  if (type.endsWith('[]')) return `CAST(to_json(${column}) AS VARCHAR)`;
  return `CAST(${column} AS VARCHAR)`;
}

function spelled(value: unknown, type: string): Cell {
  if (typeof value === 'number') return postgresFloat(value, type === 'FLOAT' ? 'real' : 'double');
  return value as Cell;
}
