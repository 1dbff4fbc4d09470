/** How fast the Postgres sink is, and beside COPY into the same table in the same run; prints its figures, and fails only where something became quadratic. */
import { from as copyFrom } from 'pg-copy-streams';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import {
  at,
  generator,
  mergeTable,
  readAll,
  shape,
  startPostgres,
  type TestServer,
  upsert,
  windowOf,
  withSink,
} from './postgres-sink-fixture.ts';

vi.setConfig({ testTimeout: 300_000 });

let server: TestServer;
beforeAll(async () => {
  server = await startPostgres();
}, 60_000);
afterAll(() => server.stop());

const columns = [
  'id uuid key',
  'org uuid',
  'severity text',
  'score numeric(5,2)',
  'seen_at timestamp with time zone',
  'open boolean',
  'body jsonb',
  'note text',
];
const uuid = (n: number) => `00000000-0000-4000-8000-${n.toString(16).padStart(12, '0')}`;
const body = JSON.stringify({ rule: 'login from a new place', path: ['a', 'b'], text: 'x'.repeat(100) });
const row = (n: number, note = 'note') => [
  uuid(n),
  uuid(n % 50),
  'high',
  '7.50',
  '2026-11-01 12:34:56.789012+00',
  't',
  body,
  note,
];

function report(what: string, rows: number, milliseconds: number): void {
  console.log(`${what}: ${Math.round((rows / milliseconds) * 1000)} rows/s (${Math.round(milliseconds)} ms)`);
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

test('windows of 100,000 rows', () =>
  withSink(server, async (sink) => {
    const findings = shape('app', 'findings', columns);
    const n = 100_000;
    const rows = (from: number, note: string) =>
      Array.from({ length: n }, (_, i) => upsert(findings, row(from + i, note)));
    const steps: [string, () => ReturnType<typeof mergeTable>][] = [
      ['into an empty table', () => mergeTable(findings, { states: rows(0, 'a') })],
      ['new rows', () => mergeTable(findings, { states: rows(n, 'b') })],
      ['changed rows', () => mergeTable(findings, { states: rows(0, 'c') })],
      [
        'partial rows',
        () =>
          mergeTable(findings, {
            states: rows(0, 'd').map((state, i) =>
              upsert(
                findings,
                row(i, 'd').map((cell, c) => (c === 6 ? undefined : cell)),
                state.key,
              ),
            ),
          }),
      ],
      [
        'deleted rows',
        () =>
          mergeTable(findings, {
            states: rows(0, '').map(({ key }) => ({ op: 'delete', key, position: at(1) })),
          }),
      ],
    ];
    for (const [i, [what, table]] of steps.entries()) {
      const window = windowOf(i + 1, [table()]);
      report(what, n, await timed(() => sink.mergeWindow(window)));
    }
    let read = 0;
    const milliseconds = await timed(async () => {
      read = (await readAll(sink, findings, at(5))).length;
    });
    expect(read).toBe(n);
    report('read back', n, milliseconds);
  }));

/** Keys that come in no order, as random ones do. */
const scattered = (n: number) =>
  `${(Math.imul(n, 2_654_435_761) >>> 0).toString(16).padStart(8, '0')}${uuid(n).slice(8)}`;

test('beside COPY into the same table with its key, and in a table ten times as large', () =>
  withSink(server, async (sink, database) => {
    const findings = shape('app', 'findings', columns);
    const n = 100_000;
    const line = (i: number) => [scattered(i), ...row(i).slice(1)];
    const states = (from: number) => Array.from({ length: n }, (_, i) => upsert(findings, line(from + i)));
    await sink.mergeWindow(windowOf(1, [mergeTable(findings, {})]));
    const client = await server.connect(database);
    await client.query('CREATE TABLE app.copied (LIKE app.findings INCLUDING INDEXES)');
    const copy = async (from: number) => {
      const lines = Array.from({ length: n }, (_, i) => line(from + i).join('\t'));
      const data = Buffer.from(`${lines.join('\n')}\n`);
      return timed(
        () =>
          new Promise<void>((resolve, reject) => {
            const stream = client.query(copyFrom('COPY app.copied FROM STDIN'));
            stream.on('finish', resolve).on('error', reject);
            for (let at = 0; at < data.length; at += 1 << 16) stream.write(data.subarray(at, at + (1 << 16)));
            stream.end();
          }),
      );
    };
    let sequence = 1;
    const merge = async (from: number) => {
      const window = windowOf(++sequence, [mergeTable(findings, { states: states(from) })]);
      return timed(() => sink.mergeWindow(window));
    };
    const inserts = { copy: 0, merge: 0 };
    // By turns, so that both meet the same machine.
    for (let turn = 0; turn < 4; turn++) {
      inserts.copy += await copy(turn * n);
      inserts.merge += await merge(turn * n);
    }
    report('COPY', 4 * n, inserts.copy);
    report('new rows', 4 * n, inserts.merge);
    const halves = (await merge(3.5 * n)) + (await merge(4 * n));
    report('half new, half changed', 2 * n, halves);
    console.log(`of COPY: new rows ${(inserts.copy / inserts.merge).toFixed(2)}`);
    const times: number[] = [];
    for (const rows of [50_000, 500_000]) {
      const table = shape('app', `of_${rows}`, columns);
      await sink.mergeWindow(windowOf(++sequence, [mergeTable(table, {})]));
      const text = quoteLine(line(1).slice(1));
      await client.query(
        `INSERT INTO app.of_${rows} SELECT md5(i::text)::uuid, ${text} FROM generate_series(1, ${rows}) i; ANALYZE app.of_${rows}`,
      );
      const { rows: held } = await client.query(`SELECT id FROM app.of_${rows} LIMIT 20000`);
      const changes = [
        ...held.map(({ id }) => upsert(table, [id as string, ...row(7, 'changed').slice(1)])),
        ...Array.from({ length: 20_000 }, (_, i) => upsert(table, line(i))),
      ];
      const window = windowOf(++sequence, [mergeTable(table, { states: changes })]);
      times.push(await timed(() => sink.mergeWindow(window)));
    }
    console.log(`a table ten times as large: ${(times[1]! / times[0]!).toFixed(2)} times the time`);
    await client.end();
  }));

function quoteLine(cells: readonly string[]): string {
  return cells.map((cell) => `'${cell}'`).join(', ');
}

test('100,000 rows without a key', () =>
  withSink(server, async (sink) => {
    const log = shape(
      'app',
      'log',
      columns.map((column) => column.replace(' key', '')),
    );
    const counts = (count: number) => Array.from({ length: 100_000 }, (_, i) => ({ values: row(i), count }));
    report(
      'added',
      100_000,
      await timed(() => sink.mergeWindow(windowOf(1, [mergeTable(log, { counts: counts(2) })]))),
    );
    const fewer = await timed(() => sink.mergeWindow(windowOf(2, [mergeTable(log, { counts: counts(-1) })])));
    report('removed', 100_000, fewer);
    expect(fewer).toBeLessThan(60_000);
    expect((await readAll(sink, log, at(2))).length).toBe(100_000);
  }));

test('windows of 100 rows over 8 tables', () =>
  withSink(server, async (sink) => {
    const random = generator(7);
    const tables = Array.from({ length: 8 }, (_, t) => shape('app', `table_${t}`, columns));
    const first = tables.map((table) =>
      mergeTable(table, { states: Array.from({ length: 20_000 }, (_, i) => upsert(table, row(i))) }),
    );
    await sink.mergeWindow(windowOf(1, first));
    const times: number[] = [];
    for (let sequence = 2; sequence <= 302; sequence++) {
      const window = windowOf(
        sequence,
        tables.map((table, t) => {
          const ids = new Set(Array.from({ length: t < 4 ? 13 : 12 }, () => random.below(25_000)));
          const states = [...ids].map((n) => {
            if (n >= 20_000 || n % 3) return upsert(table, row(n));
            if (n % 2)
              return upsert(
                table,
                row(n).map((cell, c) => (c === 6 ? undefined : cell)),
                [uuid(n)],
              );
            return upsert(table, row(n, 'changed'));
          });
          return mergeTable(table, { states });
        }),
      );
      times.push(await timed(() => sink.mergeWindow(window)));
    }
    times.sort((a, b) => a - b);
    const quantile = (q: number) => times[Math.floor(times.length * q)]!;
    console.log(
      `100-row window over 8 tables: p50 ${quantile(0.5).toFixed(1)} ms, p99 ${quantile(0.99).toFixed(1)} ms`,
    );
    expect(quantile(0.5)).toBeLessThan(100);
  }));
