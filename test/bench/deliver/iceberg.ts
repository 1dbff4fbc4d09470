/**
 * Kafka to Iceberg tables over a directory: new rows into an empty table, beside DuckDB that writes the same rows anew; then a
 * table of twenty times as many rows with a random key, into which half updates from all over it and half new rows go, and
 * Windows of a thousand changes.
 */
import pg from 'pg';
import { pauseDestination, resumeDestination } from '../../../src/deliver/pauses.ts';
import { bulkFindings } from '../../../src/sample/bulk.ts';
import { migrateSample } from '../../../src/sample/migrate.ts';
import { seedSample } from '../../../src/sample/seed.ts';
import { type BenchDatabase, BenchStack, leave, say, settle, sourceIdOf } from '../bench-stack.ts';
import { median } from '../process-cost.ts';
import { type Measured, raceBar, takesPart } from '../race-table.ts';
import { introduceReader, ReaderProcess } from '../reader-process.ts';
import type { BenchResult } from '../run.ts';
import {
  type Destination,
  deliverAll,
  delivered,
  describe,
  iceberg,
  perRow,
  publish,
  receipts,
  start,
} from './delivery-run.ts';
import { appendRows, rewriteFiles } from './iceberg-base.ts';

const rounds = Number(process.env.BENCH_ROUNDS ?? 3);
const rows = Number(process.env.BENCH_ROWS ?? 500_000);
const baseRows = rows * 20;
const changes = Math.round(rows * 0.8);
const few = 1000;
const fewRounds = 5;

interface Line extends Measured {
  what: string;
  /** Of a Window, from its first byte to its acknowledgement. */
  windowMs?: number;
}

export async function icebergBench(): Promise<BenchResult> {
  const lines: Line[] = [];
  const note = (line: Line) => {
    lines.push(line);
    const { what, rowsPerSecond, cpuMicrosPerRow, windowMs } = line;
    say(
      `${what}: ${Math.round(rowsPerSecond)} rows/s, ${cpuMicrosPerRow.toFixed(1)} µs${windowMs === undefined ? '' : `, ${windowMs} ms`}`,
    );
  };
  await BenchStack.with(
    'iceberg',
    async (stack) => {
      for (let round = 1; round <= rounds; round += 1) await newRows(stack, note);
      if (takesPart('large')) await intoLargeTable(stack, note);
    },
    ['iceberg'],
  );
  return {
    name: 'iceberg',
    rows: [...Map.groupBy(lines, ({ what }) => what)].map(([what, own]) => {
      const mid = (of: (line: Line) => number) => median(own.map(of));
      const [{ windowMs, peakMiB }] = own as [Line];
      return {
        what,
        [raceBar]: Math.round(mid((line) => line.rowsPerSecond)),
        'CPU µs/row': Number(mid((line) => line.cpuMicrosPerRow).toFixed(2)),
        'peak MiB': peakMiB === 0 ? '' : Math.round(mid((line) => line.peakMiB)),
        'Window ms': windowMs === undefined ? '' : Math.round(mid((line) => line.windowMs!)),
      };
    }),
    bar: raceBar,
    note: `${rows} findings; ${changes} and ${few} changes of a table of ${baseRows} rows with a random uuid as its key, one delivering process; ${rounds} rounds, ${fewRounds} of the small Windows; a Window from its first byte to its acknowledgement, commits of table and progress included`,
  };
}

async function newRows(stack: BenchStack, note: (line: Line) => void): Promise<void> {
  const source = await stack.database();
  const lake = iceberg('lake', stack, source.name);
  await migrateSample(source.client);
  await seedSample(source.client, { seed: 1, findings: 0 });
  const config = await stack.config(source);
  await describe(source, lake);
  await introduceReader(config, source.client);
  await bulkFindings(source.client, { rows, seed: 'new' });
  await publish(source.client, config);
  const what = 'Kafka to Iceberg, new rows';
  note({ what, ...perRow(await deliverAll(source, config, lake.name, rows), rows) });
  const table = { namespace: [source.name], name: 'findings' };
  note({
    what: 'DuckDB, the same rows from Parquet to sorted Parquet',
    ...(await rewriteFiles(lake, table, 'id', `${source.folder}/floor`)),
  });
  await leave(source);
}

async function intoLargeTable(stack: BenchStack, note: (line: Line) => void): Promise<void> {
  const source = await stack.database();
  const { client } = source;
  await client.query('create schema app');
  await client.query(
    'create table app.things (id uuid primary key, state text, score float8, note text, at timestamptz)',
  );
  // Of the rows that are there, the source needs those that it is going to update; they come before its slot does.
  const updates = 1 + rounds * (changes / 2) + fewRounds * (few / 2);
  await client.query(
    `insert into app.things select md5('first/' || n * $1::int8)::uuid, 'new', n, 'a thing among many, number ' || n, now()
       from generate_series(1, $2::int8) as n`,
    [Math.floor(baseRows / updates), updates],
  );
  const config = await stack.config(source);
  const lake = iceberg('lake', stack, source.name);
  await describe(source, lake);
  await introduceReader(config, client);
  const large = new LargeTable(source, config, lake, Math.floor(baseRows / updates));
  await large.insert('the one that makes the table', 1);
  await publish(client, config);
  await deliverAll(source, config, lake.name, 1);
  say(`appending ${baseRows} rows`);
  await appendRows(
    lake,
    { namespace: [source.name], name: 'things' },
    'id',
    baseRows,
    `md5('first/' || n)::UUID AS id, 'new' AS state, CAST(n AS DOUBLE) AS score, 'a thing among many, number ' || n AS note,
       CAST(now() AS TIMESTAMPTZ) AS "at", '' AS _tidemark_position`,
  );
  await large.run(note);
  await leave(source);
}

class LargeTable {
  readonly #source: BenchDatabase;
  readonly #config: string;
  readonly #lake: Destination;
  readonly #step: number;
  #updated = 0;

  /** @param step of the rows that are there, every how many the source has */
  constructor(source: BenchDatabase, config: string, lake: Destination, step: number) {
    this.#source = source;
    this.#config = config;
    this.#lake = lake;
    this.#step = step;
  }

  async run(note: (line: Line) => void): Promise<void> {
    const reading = await ReaderProcess.start(this.#config);
    const delivering = await start(this.#config, this.#lake.name);
    const pool = new pg.Pool({ connectionString: this.#source.url, max: 1 });
    const through = async (what: string, seed: string, count: number) =>
      note({ what, ...(await this.#round(reading, delivering, pool, seed, count)) });
    try {
      await through('the first Window of a process: the index is made', 'index', 2);
      for (let round = 1; round <= rounds; round += 1)
        await through('Kafka to Iceberg, half new rows, half updates', `half ${round}`, changes);
      for (let round = 1; round <= fewRounds; round += 1)
        await through(`${few} changes`, `few ${round}`, few);
    } finally {
      await pool.end();
      await delivering.stop();
      await reading.stop();
    }
  }

  async #round(
    reading: ReaderProcess,
    delivering: ReaderProcess,
    pool: pg.Pool,
    seed: string,
    count: number,
  ): Promise<Omit<Line, 'what'>> {
    const { client, name } = this.#source;
    const destination = { sourceId: sourceIdOf(name), destination: this.#lake.name };
    await pauseDestination(pool, destination, { by: 'bench', reason: 'a backlog is made' });
    await this.insert(seed, count / 2);
    await this.#update(count / 2);
    await reading.confirmed(client, await settle(client));
    const [before, windows] = [await receipts(client, this.#lake.name), await this.#mergedMs()];
    await resumeDestination(pool, destination);
    const cost = await delivered(delivering, this.#source, this.#lake.name, before.rows + count);
    const after = await this.#mergedMs();
    return {
      ...perRow(cost, count),
      windowMs: (after.total - windows.total) / (after.count - windows.count),
    };
  }

  async #update(count: number): Promise<void> {
    const { rowCount } = await this.#source.client.query(
      `update app.things set state = 'changed', at = clock_timestamp()
        where id in (select md5('first/' || n * $1::int8)::uuid from generate_series($2::int8 + 1, $2::int8 + $3::int8) as n)`,
      [this.#step, this.#updated, count],
    );
    if (rowCount !== count) throw new Error(`${rowCount} rows were updated instead of ${count}`);
    this.#updated += count;
  }

  async insert(seed: string, count: number): Promise<void> {
    await this.#source.client.query(
      `insert into app.things select md5($1::text || '/' || n)::uuid, 'new', n * 1.5, 'a thing among many, number ' || n, clock_timestamp()
         from generate_series(1, $2::int8) as n`,
      [seed, count],
    );
  }

  async #mergedMs(): Promise<{ total: number; count: number }> {
    const { rows: found } = await this.#source.client.query<{ total: string; count: string }>(
      `select coalesce(sum(duration_ms), 0) as total, count(*) as count from tidemark.deliveries
        where destination = $1 and state = 'delivered' and (receipt->'rows'->>'upserted')::int8 > 0`,
      [this.#lake.name],
    );
    return { total: Number(found[0]!.total), count: Number(found[0]!.count) };
  }
}
