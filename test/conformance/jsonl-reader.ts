/**
 * What a stranger sees of a folder of the kind `jsonl`: the rows that `_latest.sql` gives in DuckDB, and the lines of the
 * files that the manifests name. Nothing of the sink is used.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { DuckDBInstance } from '@duckdb/node-api';
import { type TableShape, unitName } from '../../src/connector/shape.ts';
import type { Cell, Row, RowEvent } from '../../src/connector/sink.ts';
import type { SeenEvent } from './subject.ts';

type Json = string | number | boolean | null;

interface Line {
  op: RowEvent['op'];
  position: string;
  key?: Record<string, Json>;
  row?: Record<string, Json>;
}

interface Manifest {
  unit: string;
  files: { path: string }[];
  fields: { name: string; field: string }[];
}

const quoteText = (text: string) => `'${text.replaceAll("'", "''")}'`;

/** The README's rule, backwards. */
function asPostgres(value: Json): Cell {
  if (value === null) return null;
  return typeof value === 'boolean' ? (value ? 't' : 'f') : String(value);
}

/** @param folder of all tables */
export async function latestRows(folder: string, shape: TableShape): Promise<Row[]> {
  const table = await tableFolder(folder, shape);
  if (table === null) return [];
  const script = await readFile(join(table, '_latest.sql'), 'utf8');
  // As it says itself: where the folder is a copy, this line is to be corrected.
  const moved = script.replace(
    /^SET VARIABLE tidemark_base = .*$/m,
    () => `SET VARIABLE tidemark_base = ${quoteText(`${table}/`)};`,
  );
  const instance = await DuckDBInstance.create(':memory:', { threads: '1' });
  try {
    const connection = await instance.connect();
    const statements = await connection.extractStatements(moved);
    for (let i = 0; i < statements.count - 1; i += 1) await (await statements.prepare(i)).run();
    const answer = await (await statements.prepare(statements.count - 1)).runAndReadAll();
    const rows = answer.getRows() as (Json | bigint)[][];
    return rows.map((row) =>
      row.slice(0, shape.columns.length).map((value) => {
        return asPostgres(typeof value === 'bigint' ? String(value) : value);
      }),
    );
  } finally {
    instance.closeSync();
  }
}

export async function changes(folder: string, shape: TableShape): Promise<SeenEvent[]> {
  const table = await tableFolder(folder, shape);
  if (table === null) return [];
  const seen: SeenEvent[] = [];
  for (const { files, fields } of await manifests(table)) {
    const window: { order: string; event: SeenEvent }[] = [];
    for (const { path } of files) {
      for (const line of await linesOf(join(table, path))) {
        // A key change has its delete and its create at one Position.
        window.push({ order: `${line.position}${line.op === 'd' ? 0 : 1}`, event: eventOf(line, fields) });
      }
    }
    window.sort((a, b) => (a.order < b.order ? -1 : 1));
    seen.push(...window.map(({ event }) => event));
  }
  return seen;
}

function eventOf({ op, position, key = {}, row = {} }: Line, fields: Manifest['fields']): SeenEvent {
  const values: Record<string, Cell> = Object.create(null) as Record<string, Cell>;
  for (const [field, value] of Object.entries(row)) {
    const name = fields.find((each) => each.field === field)!.name;
    if (op !== 'e') values[name] = asPostgres(value);
  }
  return { op, position, key: Object.values(key).map(asPostgres), values };
}

async function linesOf(path: string): Promise<Line[]> {
  const packed = await readFile(path);
  const text = (path.endsWith('.gz') ? gunzipSync(packed) : zstdDecompressSync(packed)).toString('utf8');
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Line);
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
