/** How fast the Postgres sink is; prints its figures, and fails only where something became quadratic. */
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
