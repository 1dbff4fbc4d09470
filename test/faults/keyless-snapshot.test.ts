/**
 * Snapshots of tables without a key while the stream runs: whatever writes, whatever dies, a destination has the table
 * as the source has it, with as many equal rows.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FaultStack, type Pipeline, until } from '../fixtures/pipeline.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('keyless-snapshot');
});
afterAll(async () => {
  await faults?.stop();
});

/** Many batches of one table; new tables join at once. */
const config = { 'source.publication.interval': '500ms', 'kafka.batch.max.bytes': '64KiB' };

/** Few different rows, so that most have many equals; some bodies lie in TOAST. */
const row = `n % 40, 'word ' || n % 7, case when n % 50 = 0 then repeat(md5((n % 3)::text), 200) end`;

async function createTable(source: pg.Client, table: string, identity: string, rows: number): Promise<void> {
  await source.query('begin');
  await source.query(`create table ${table} (kind int, word text, body text)`);
  await source.query(`alter table ${table} alter body set storage external`);
  await source.query(`alter table ${table} replica identity ${identity}`);
  await source.query(`insert into ${table} select ${row} from generate_series(1, ${rows}) n`);
  await source.query('commit');
}

/** Applications at work, until stopped. */
class Writers {
  writes = 0;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>[];

  constructor(pipeline: Pipeline, table: string, kinds: readonly ('insert' | 'update' | 'delete')[]) {
    const one = `(select ctid from ${table} where kind = $1 limit 1 for update skip locked)`;
    const statements = {
      insert: `insert into ${table} select ${row} from generate_series($1::int, $1::int + 3) n`,
      update: `update ${table} set word = 'updated' where ctid = ${one}`,
      delete: `delete from ${table} where ctid = ${one}`,
    };
    this.#running = [0, 1, 2].map(async (writer) => {
      const client = await pipeline.connectTo('app');
      for (let i = writer; !this.#stopping.signal.aborted; i += 3) {
        await client.query('begin');
        for (let change = 0; change <= i % 3; change++)
          await client.query(statements[kinds[(i + change) % kinds.length]!], [(i * 7 + change) % 40]);
        await client.query(i % 11 === 0 ? 'rollback' : 'commit');
        this.writes++;
        await sleep(5);
      }
    });
    for (const running of this.#running) running.catch(() => {});
  }

  async more(count: number): Promise<void> {
    const goal = this.writes + count;
    await until('the application writes', 30_000, () => this.writes >= goal);
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#running);
  }
}

interface SnapshotRow {
  state: string;
  kind: string;
  rows: number;
  waits_for: string | null;
  error_code: string | null;
}

async function newest(pipeline: Pipeline, table: string): Promise<SnapshotRow | undefined> {
  const { rows } = await pipeline.control.query<SnapshotRow>(
    `select state, kind, rows::int as rows, waits_for, error_code from tidemark.snapshots
      where table_name = $1 order by requested_at desc limit 1`,
    [table],
  );
  return rows[0];
}

async function reaches(pipeline: Pipeline, table: string, state: string, timeoutMs = 60_000): Promise<void> {
  await until(`the snapshot of ${table} is ${state}`, timeoutMs, async () => {
    const now = await newest(pipeline, table);
    if (now?.state === 'failed' && state !== 'failed') throw new Error(`${now.error_code}`);
    return now?.state === state;
  });
}

async function snapshot(pipeline: Pipeline, ...args: string[]): Promise<string> {
  const outcome = await pipeline.command(['snapshot', ...args]);
  expect(outcome.code, outcome.stdout + outcome.stderr).toBe(0);
  return outcome.stdout;
}

test('a table without a key that joins under load arrives whole, with as many equal rows', () =>
  faults.run('keyless-joins', { config }, async (pipeline) => {
    const { reader, delivery } = await pipeline.begin();
    await createTable(pipeline.source, 'app.marks', 'full', 8000);
    const writers = new Writers(pipeline, 'app.marks', ['insert', 'update', 'delete']);
    await reaches(pipeline, 'app.marks', 'done');
    await writers.more(100);
    await writers.stop();
    const { snapshotRows } = await pipeline.conclude(reader, delivery);
    expect(snapshotRows).toBeGreaterThan(7000);
  }));

test('snapshot start replaces tables without a key, several with one hold', () =>
  faults.run('keyless-start', { config }, async (pipeline) => {
    const { source, replica } = pipeline;
    const { reader, delivery } = await pipeline.begin();
    await createTable(source, 'app.marks', 'full', 4000);
    await createTable(source, 'app.lines', 'nothing', 3000);
    for (const table of ['app.marks', 'app.lines']) await reaches(pipeline, table, 'done');
    const marks = new Writers(pipeline, 'app.marks', ['insert', 'update', 'delete', 'insert']);
    await marks.more(50);
    // What no stream tells of a table without a replica identity, and what somebody did to the destination.
    await source.query(`delete from app.lines where kind < 10`);
    await source.query(`update app.lines set word = 'not told' where kind = 11`);
    await pipeline.published();
    await until('the replica loses rows', 60_000, async () => {
      const { rowCount } = await replica.query('delete from app.lines where kind = 20');
      return rowCount! > 0;
    });
    const lines = new Writers(pipeline, 'app.lines', ['insert']);
    const refused = await pipeline.command(['snapshot', 'start', 'app.lines', '--where', 'kind = 1']);
    expect(refused.stderr).toContain('TM221');
    expect(refused.stderr).toContain('--where would lose the rest');
    // So that it finds both at once.
    reader.signal('SIGSTOP');
    await snapshot(pipeline, 'start', 'app.marks', 'app.lines').finally(() => reader.signal('SIGCONT'));
    for (const table of ['app.marks', 'app.lines']) await reaches(pipeline, table, 'done');
    expect(await newest(pipeline, 'app.lines')).toMatchObject({ kind: 'ad-hoc', waits_for: null });
    await Promise.all([marks.more(30), lines.more(30)]);
    await Promise.all([marks.stop(), lines.stop()]);
    const holds = reader
      .logLines()
      .filter(({ message }) => message.startsWith('tables without a key are read'));
    expect((holds.at(-1)!.tables as string[]).toSorted()).toEqual(['app.lines', 'app.marks']);
    expect((await pipeline.status()).ok).toBe(true);
    await pipeline.conclude(reader, delivery);
  }));

test('a long transaction holds the snapshot and the stream, which is said, and cancel lets go', () =>
  faults.run('keyless-long', { config }, async (pipeline) => {
    const { reader, delivery } = await pipeline.begin();
    await createTable(pipeline.source, 'app.marks', 'full', 2000);
    await reaches(pipeline, 'app.marks', 'done');
    const long = await pipeline.connectTo('app');
    const open = async () => {
      await long.query('begin');
      await long.query(`insert into app.marks values (1, 'long', 'transaction')`);
      await long.query(`delete from app.marks where kind = 3`);
    };
    const held = () =>
      until('the snapshot says what it waits for', 20_000, async () => {
        const status = await snapshot(pipeline, 'status', 'app.marks');
        return /waits for the end of transactions .* the oldest of process \d+ for \d+ s; the stream waits/.test(
          status,
        );
      });
    await open();
    const writers = new Writers(pipeline, 'app.marks', ['insert', 'update', 'delete']);
    await snapshot(pipeline, 'start', 'app.marks');
    await held();
    // Longer than wal_sender_timeout would need is not waited for here; statuses go on, or the slot would be free.
    await reader.logged('that the stream is held', ({ message }) => message.startsWith('the stream is held'));
    await expect(pipeline.published(2000)).rejects.toThrow('timed out');
    await snapshot(pipeline, 'cancel', 'app.marks');
    await pipeline.published(20_000);
    await snapshot(pipeline, 'start', 'app.marks');
    await held();
    await snapshot(pipeline, 'pause', 'app.marks');
    await pipeline.published(20_000);
    await snapshot(pipeline, 'resume', 'app.marks');
    await held();
    // A reader that dies while the server waits leaves a slot behind; the next one ends it.
    await reader.kill();
    const next = pipeline.replicate();
    await pipeline.streaming(next);
    await held();
    const { rows } = await pipeline.source.query(
      `select from pg_replication_slots where temporary and slot_name like $1`,
      [`${pipeline.slot}%`],
    );
    expect(rows).toHaveLength(1);
    await long.query('commit');
    await reaches(pipeline, 'app.marks', 'done');
    await writers.more(30);
    await writers.stop();
    await pipeline.conclude(next, delivery);
  }));

test('kill -9 at every point of replacing a table loses and repeats nothing', () =>
  faults.run('keyless-kills', { config }, async (pipeline) => {
    const { reader: first, delivery } = await pipeline.begin();
    await first.stop();
    await createTable(pipeline.source, 'app.marks', 'full', 6000);
    const writers = new Writers(pipeline, 'app.marks', ['insert', 'update', 'delete']);
    for (const death of [
      'table-hold=kill',
      'table-slot=kill',
      'table-batch=kill@1',
      'table-batch=kill@4',
      'before-table-commit=kill',
      'after-table-commit=kill',
    ]) {
      pipeline.note(death);
      const doomed = pipeline.replicate(death);
      expect(await doomed.exitsWithin(60_000), `the reader dies at ${death}`).toBe('SIGKILL');
    }
    let reader = pipeline.replicate();
    await reaches(pipeline, 'app.marks', 'done');
    await writers.more(30);
    await snapshot(pipeline, 'start', 'app.marks');
    await until(
      'rows are read',
      30_000,
      async () => (await newest(pipeline, 'app.marks'))?.state === 'running',
    );
    await reader.kill();
    reader = pipeline.replicate();
    await reaches(pipeline, 'app.marks', 'done');
    await writers.more(30);
    await writers.stop();
    const { truncates } = await pipeline.conclude(reader, delivery);
    // Once by the attempt that died after it counted, once on request; the others were aborted.
    expect(truncates).toBe(2);
  }));

test('a table that takes longer than a Kafka transaction may is cut, and what a dead attempt leaves does not last', () =>
  faults.run(
    'keyless-cut',
    { config: { ...config, 'kafka.transaction.timeout': '2s' } },
    async (pipeline) => {
      const { reader: first, delivery } = await pipeline.begin();
      await createTable(pipeline.source, 'app.marks', 'full', 9000);
      await reaches(pipeline, 'app.marks', 'done');
      await first.stop();
      const writers = new Writers(pipeline, 'app.marks', ['insert', 'update', 'delete']);
      const doomed = pipeline.replicate('table-batch=sleep:400,before-table-commit=kill');
      await pipeline.streaming(doomed);
      await snapshot(pipeline, 'start', 'app.marks');
      expect(await doomed.exitsWithin(60_000)).toBe('SIGKILL');
      const reader = pipeline.replicate('table-slot=sleep:3000@1,table-batch=sleep:400');
      await pipeline.streaming(reader);
      // What is left of the dead attempt is at a boundary now, and delivered.
      await pipeline.delivering(['replica']);
      await reaches(pipeline, 'app.marks', 'done');
      await writers.more(30);
      await writers.stop();
      const { progress } = await pipeline.conclude(reader, delivery);
      const inside = progress.filter(
        ({ position, boundary }) => !boundary && /[7F]\/[0-9A-F]+$/.test(position),
      );
      expect(inside.length).toBeGreaterThan(2);
    },
  ));

test('cancelled while its rows are read, a table stays as it was', () =>
  faults.run('keyless-cancel', { config }, async (pipeline) => {
    const { reader: first, delivery } = await pipeline.begin();
    await createTable(pipeline.source, 'app.marks', 'full', 6000);
    await createTable(pipeline.source, 'app.lines', 'nothing', 500);
    for (const table of ['app.marks', 'app.lines']) await reaches(pipeline, table, 'done');
    await first.stop();
    const reader = pipeline.replicate('table-batch=sleep:1500');
    const writers = new Writers(pipeline, 'app.marks', ['insert', 'update', 'delete']);
    await snapshot(pipeline, 'start', 'app.lines', 'app.marks');
    await until('rows are read', 30_000, async () => (await newest(pipeline, 'app.marks'))!.rows > 0);
    expect(await snapshot(pipeline, 'status', 'app.marks')).toMatch(/running \(ad hoc\), [\d,]+ of about/);
    await snapshot(pipeline, 'cancel', 'app.marks');
    await reader.logged('that it was ended', ({ message }) => message.includes('before it counted'));
    await reaches(pipeline, 'app.lines', 'done');
    expect((await newest(pipeline, 'app.marks'))!.state).toBe('cancelled');
    await writers.more(30);
    await writers.stop();
    await pipeline.conclude(reader, delivery);
  }));
