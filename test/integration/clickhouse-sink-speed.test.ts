/**
 * How fast the ClickHouse sink is; prints its figures. What it fails on: a merge whose cost grows with the table instead
 * of with the changes.
 */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { MergeSink, MergeTable, Readable, RowState } from '../../src/connector/sink.ts';
import { type ClickHouse, openClickHouse, startClickHouse } from './clickhouse-sink-fixture.ts';
import { at, generator, mergeTable, readAll, shape, windowOf } from './postgres-sink-fixture.ts';

vi.setConfig({ testTimeout: 300_000 });

let server: ClickHouse;
beforeAll(async () => {
  server = await startClickHouse();
});
afterAll(() => server?.stop());

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
const findings = shape('app', 'findings', columns);
const visits = shape(
  'app',
  'visits',
  columns.map((column) => column.replace(' key', '')),
);
/** Random, as version 4 is, and the same each time. */
const uuid = (n: number) => {
  const part = (salt: number) => (Math.imul(n + salt, 0x9e3779b1) >>> 0).toString(16).padStart(8, '0');
  const hex = part(0) + part(7) + part(13) + n.toString(16).padStart(8, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20)}`;
};
const body = JSON.stringify({ rule: 'login from a new place', path: ['a', 'b'], text: 'x'.repeat(100) });
const row = (n: number, note: string) => [
  uuid(n),
  uuid(n % 50),
  'high',
  '7.50',
  '2026-11-01 12:34:56.789012+00',
  't',
  body,
  note,
];

/** The rows' states, all made before they are asked for: that is not the sink's time. */
function table(states: (index: number) => RowState, count: number): MergeTable {
  return mergeTable(findings, { states: Array.from({ length: count }, (_, i) => states(i)) });
}

class Writer {
  readonly sink: MergeSink & Readable;
  sequence = 0;

  constructor(sink: MergeSink & Readable) {
    this.sink = sink;
  }

  /** Milliseconds. */
  async write(tables: MergeTable[], unit = 'app.findings'): Promise<number> {
    this.sequence++;
    const begun = performance.now();
    await this.sink.mergeWindow(windowOf(this.sequence, tables, { unit }));
    return performance.now() - begun;
  }

  whole =
    (from: number, note: string) =>
    (i: number): RowState => ({
      op: 'upsert',
      key: [uuid(from + i)],
      values: row(from + i, note),
      fillFrom: null,
      position: at(this.sequence + 1),
    });

  partial =
    (numbers: readonly number[], note: string) =>
    (i: number): RowState => ({
      op: 'upsert',
      key: [uuid(numbers[i]!)],
      values: row(numbers[i]!, note).map((cell, c) => (c === 6 ? undefined : cell)),
      fillFrom: [uuid(numbers[i]!)],
      position: at(this.sequence + 1),
    });

  gone =
    (numbers: readonly number[]) =>
    (i: number): RowState => ({
      op: 'delete',
      key: [uuid(numbers[i]!)],
      position: at(this.sequence + 1),
    });
}

function report(what: string, rows: number, milliseconds: number): void {
  console.log(`${what}: ${Math.round((rows / milliseconds) * 1000)} rows/s (${Math.round(milliseconds)} ms)`);
}

const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, i) => from + i);
const median = (times: number[]) => times.toSorted((a, b) => a - b)[times.length >> 1]!;

describe('speed', () => {
  it('windows of 200,000 rows', async () => {
    const writer = new Writer(await openClickHouse(server.place()));
    const n = 200_000;
    report('into an empty table', n, await writer.write([table(writer.whole(0, 'a'), n)]));
    report('new rows', n, await writer.write([table(writer.whole(n, 'b'), n)]));
    report('changed rows', n, await writer.write([table(writer.whole(0, 'c'), n)]));
    report('partial rows', n, await writer.write([table(writer.partial(numbers(n), 'd'), n)]));
    report('deleted rows', n, await writer.write([table(writer.gone(numbers(n)), n)]));
    const begun = performance.now();
    expect((await readAll(writer.sink, findings, at(writer.sequence))).length).toBe(n);
    report('read back', n, performance.now() - begun);
    await writer.sink.close();
  });

  it('100,000 rows without a key', async () => {
    const writer = new Writer(await openClickHouse(server.place()));
    const n = 100_000;
    const counts = (count: number) => numbers(n).map((i) => ({ values: row(i, ''), count }));
    report('added', n, await writer.write([mergeTable(visits, { counts: counts(2) })], 'app.visits'));
    report('removed', n, await writer.write([mergeTable(visits, { counts: counts(-1) })], 'app.visits'));
    expect((await readAll(writer.sink, visits, at(writer.sequence))).length).toBe(n);
    await writer.sink.close();
  });

  it('windows of 100 rows', async () => {
    const writer = new Writer(await openClickHouse(server.place()));
    await writer.write([table(writer.whole(0, 'a'), 20_000)]);
    const times: number[] = [];
    for (let i = 0; i < 60; i++) times.push(await writer.write([table(writer.whole(i * 100, 'b'), 100)]));
    times.sort((a, b) => a - b);
    console.log(`a Window of 100 rows: p50 ${times[30]!.toFixed(1)} ms, p99 ${times[59]!.toFixed(1)} ms`);
    await writer.sink.close();
  });
});

describe('the same changes', () => {
  it('cost the same in a table ten times larger', async () => {
    const cost = async (size: number) => {
      const writer = new Writer(await openClickHouse(server.place()));
      for (let from = 0; from < size; from += 100_000)
        await writer.write([table(writer.whole(from, 'a'), Math.min(size, 100_000))]);
      const random = generator(3);
      const some = (count: number) => [...new Set(Array.from({ length: count }, () => random.below(size)))];
      const kinds: Record<string, number[]> = { whole: [], partial: [], deleted: [] };
      for (let i = 0; i < 7; i++) {
        kinds.whole!.push(await writer.write([table(writer.whole(random.below(size - 5000), 'w'), 5000)]));
        const changed = some(1000);
        kinds.partial!.push(await writer.write([table(writer.partial(changed, 'p'), changed.length)]));
        // Rows that no partial update asks for again.
        kinds.deleted!.push(await writer.write([table(writer.gone(numbers(100, size + i * 100)), 100)]));
      }
      await writer.sink.close();
      return Object.fromEntries(Object.entries(kinds).map(([kind, times]) => [kind, median(times)]));
    };
    const small = await cost(50_000);
    const large = await cost(500_000);
    for (const kind of Object.keys(small)) {
      const ratio = large[kind]! / small[kind]!;
      console.log(
        `${kind}: ${small[kind]!.toFixed(0)} ms, then ${large[kind]!.toFixed(0)} ms: ${ratio.toFixed(2)} times`,
      );
    }
    // Room for a busy machine; the figures are in the README.
    expect(large.whole! / small.whole!).toBeLessThan(2.5);
    expect(large.deleted! / small.deleted!).toBeLessThan(2.5);
  });
});
