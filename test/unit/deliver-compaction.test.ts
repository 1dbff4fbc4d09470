/**
 * The fast path from records to a merged destination (store, compaction, SDK) against its slow twin: the table kept
 * as a map, Change by Change. Random histories; the seed is printed with every failure.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { KafkaMessage, Message } from 'kafkajs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { beforeEverything, formatPosition, type Position } from '../../src/connector/position.ts';
import type { MergeSink, PartialRow, Readable, Row, RowEvent } from '../../src/connector/sink.ts';
import { appendTables, mergeTables } from '../../src/deliver/compact-window.ts';
import { RowSchemas } from '../../src/deliver/row-schemas.ts';
import { noSnapshots } from '../../src/deliver/snapshot-list.ts';
import { UnitIngest } from '../../src/deliver/unit-ingest.ts';
import { WindowStore } from '../../src/deliver/window-store.ts';
import { evictionsOf, header } from '../../src/publish/record-format.ts';
import { FakeFetcher } from '../fixtures/fake-fetcher.ts';
import { fetchedRecord } from '../fixtures/fetched-record.ts';
import { MemoryStore, memorySink } from '../integration/deliver-memory-sink.ts';
import { type Change, shape, TableRecords } from '../integration/deliver-records.ts';
import { type Random, random } from './deliver-random.ts';

let directory: string;
/** One that spills everything, one that spills when some rows are there, and one that keeps all in memory. */
const stores: WindowStore[] = [];
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'tidemark-compaction-'));
  for (const heldBytes of [0, 20_000, 1 << 30])
    stores.push(
      await WindowStore.open({
        directory: join(directory, `held-${heldBytes}`),
        memoryBytes: 64 << 20,
        heldBytes,
        maxBytes: 1 << 30,
      }),
    );
});
afterAll(async () => {
  for (const store of stores) await store.close();
  rmSync(directory, { recursive: true, force: true });
});

let serial = 0;
/** As many as records are made for. */
const partitions = [0, 1, 2, 3, 4, 5];

/** Evictions are told in a topic of their own. */
function topicOf({ topic }: TableRecords, { headers }: Message): string {
  return headers?.[header.eviction] === undefined ? topic : evictionsOf(topic);
}

class Bench {
  readonly #schemaTexts: string[] = [];
  readonly schemas = new RowSchemas({ schemaById: async (id) => this.#schemaTexts[id]! });
  readonly unit = stores[serial % stores.length]!.unit(`u${serial++}`);
  readonly ingest: UnitIngest;
  readonly #fetcher = new FakeFetcher();
  readonly #offsets = new Map<string, number>();
  readonly #begun: Promise<boolean>;
  #lsn = 1n;

  constructor(topics: string[]) {
    this.ingest = new UnitIngest({
      destination: 'd',
      store: this.unit,
      fetcher: this.#fetcher,
      watermarks: async () => partitions.map(() => ({ low: 0, high: 0 })),
      newestEnds: () => ({}),
      tenant: null,
      tenantTables: { require: async () => {} },
      room: () => 'ample',
      changed: () => {},
    });
    this.ingest.assign(Object.fromEntries(topics.map((topic) => [topic, partitions])));
    // Somebody waits for whatever comes, however little memory there is.
    const ends = partitions.map(() => Number.POSITIVE_INFINITY);
    this.ingest.setTarget(Object.fromEntries(topics.map((topic) => [topic, ends])));
    this.#begun = this.ingest.begin({
      position: beforeEverything,
      commitTimeUs: 0n,
      offsets: Object.fromEntries(topics.map((topic) => [topic, []])),
    });
  }

  register = async (_subject: string, schema: string): Promise<number> => {
    const known = this.#schemaTexts.indexOf(schema);
    return known >= 0 ? known : this.#schemaTexts.push(schema) - 1;
  };

  /** Records of one transaction into the store, partition by partition, in batches as fetches would bring them. */
  async commit(r: Random, made: { table: TableRecords; changes: Change[] }[]): Promise<Position> {
    await this.#begun;
    this.#lsn += 8n;
    let ordinal = 0;
    const next = () => formatPosition({ epoch: 1, lsn: this.#lsn, ordinal: ++ordinal });
    const queues = new Map<string, { topic: string; partition: number; messages: Message[] }>();
    for (const { table, changes } of made) {
      for (const change of changes) {
        for (const message of table.records(change, 1_700_000_000_000_000n + this.#lsn, next)) {
          const topic = topicOf(table, message);
          const key = `${topic}/${message.partition}`;
          const queue = queues.get(key) ?? {
            topic,
            partition: message.partition!,
            messages: [],
          };
          queue.messages.push(message);
          queues.set(key, queue);
        }
      }
    }
    while (queues.size > 0) {
      const [key, { topic, partition, messages }] = r.pick([...queues]);
      const batch = messages.splice(0, 1 + r.integer(10)).map((message) => {
        const offset = this.#offsets.get(key) ?? 0;
        this.#offsets.set(key, offset + 1);
        const headers = Object.fromEntries(
          Object.entries(message.headers!).map(([name, value]) => [
            name,
            typeof value === 'string' ? Buffer.from(value) : value,
          ]),
        );
        const { key: recordKey, value } = message;
        return fetchedRecord({ key: recordKey, value, headers, offset: String(offset) } as KafkaMessage);
      });
      if (messages.length === 0) queues.delete(key);
      const taken = await this.#fetcher.bring(topic, partition, batch);
      this.ingest.throwIfFailed();
      expect(taken).toBe(true);
    }
    return formatPosition({ epoch: 1, lsn: this.#lsn, ordinal });
  }
}

function randomText(r: Random): string | null {
  return r.next() < 0.1 ? null : `v${r.integer(1000)}`;
}

function randomChange(r: Random, table: TableRecords, evicts: boolean): Change {
  const width = table.shape.columns.length;
  const keyed = table.shape.keyColumns.length > 0;
  const cells = () => Array.from({ length: width - (keyed ? 1 : 0) }, () => randomText(r));
  if (r.next() < (evicts ? 0.03 : 0.01)) return { op: 't' };
  if (!keyed) {
    const images = [...table.copies.keys()];
    const fresh = (): Row => [
      r.pick(['a', 'b', 'c']),
      ...cells()
        .slice(1)
        .map(() => r.pick(['x', null])),
    ];
    const roll = r.next();
    if (images.length === 0 || roll < 0.5) return { op: 'c', row: fresh() };
    const old = JSON.parse(r.pick(images)) as Row;
    if (roll < 0.7) return { op: 'd', row: old };
    return {
      op: 'u',
      before: old,
      row: fresh().map((cell, i) => (r.next() < 0.3 ? undefined : (cell ?? old[i]!))),
    };
  }
  const known = [...table.rows].filter(([key]) => !table.retired.has(key)).map(([, row]) => row);
  const gone = [...table.retired].map((key) => (JSON.parse(key) as string[])[0]!);
  const free = Array.from({ length: 12 }, (_, i) => String(i)).filter(
    (key) => !table.rows.has(JSON.stringify([key])),
  );
  const partial = (key: string): PartialRow => [
    key,
    ...cells().map((cell) => (r.next() < 0.4 ? undefined : cell)),
  ];
  const roll = r.next();
  if (known.length === 0 || (roll < 0.3 && free.length > 0))
    return { op: 'c', row: [r.pick([...free, ...gone]), ...cells()] };
  const key = r.pick(known)[0]!;
  if (roll < 0.6) return { op: 'u', row: r.next() < 0.3 ? [key, ...cells()] : partial(key) };
  // Few, or nothing is left of twelve keys.
  if (evicts && roll > 0.95) return { op: 'e', row: [key, ...new Array(width - 1).fill(null)] };
  if (roll < 0.75 || free.length === 0) return { op: 'd', row: [key, ...new Array(width - 1).fill(null)] };
  return { op: 'k', oldKey: key, row: partial(r.pick(free)) };
}

const without = { topics: [], snapshots: noSnapshots };

describe('compaction', () => {
  test('a destination merged window by window is the table, on random histories', async () => {
    const r = random();
    for (let run = 0; run < 60; run++) {
      const context = `seed ${r.seed}, run ${run}`;
      // Where nothing ever was evicted there is no such topic, and no Window is parted for it.
      const evicts = run % 4 === 3;
      const bench = new Bench([
        'p.app.keyed',
        'p.app.loose',
        ...(evicts ? [evictionsOf('p.app.keyed')] : []),
      ]);
      const keyed = new TableRecords('p', shape('keyed', ['id', 'a', 'b']), 3, bench.register);
      const loose = new TableRecords('p', shape('loose', ['text', 'more'], false), 2, bench.register);
      await keyed.setShape(shape('keyed', ['id', 'a', 'b']));
      await loose.setShape(shape('loose', ['text', 'more'], false));
      const destination = new MemoryStore();
      const sink = (await memorySink(destination).open(
        { failpoint: async () => {} } as never,
        {},
      )) as MergeSink & Readable;
      let from: Position = beforeEverything;
      let sequence = 0;
      for (let window = 0; window < 8; window++) {
        let to = from;
        const transactions = 1 + r.integer(6);
        for (let i = 0; i < transactions; i++) {
          const made: { table: TableRecords; changes: Change[] }[] = [];
          // Each Change depends on the state the one before left, so they are made one at a time.
          to = await bench.commit(
            r,
            (function* () {
              for (let n = r.integer(25); n > 0; n--) {
                const table = r.next() < 0.75 ? keyed : loose;
                yield { table, changes: [randomChange(r, table, evicts)] };
              }
            })() as unknown as typeof made,
          );
        }
        // Records beyond the Window are in the store already.
        const content = await bench.unit.content({ from, to });
        if (content.length === 0) continue;
        await sink.mergeWindow({
          sourceId: 's',
          destination: 'd',
          unit: '*',
          sequence: ++sequence,
          sweeps: [],
          from,
          to,
          fencingToken: 1n,
          commitTimeUs: 0n,
          tables: await mergeTables(bench.unit, content, bench.schemas, {
            topics: bench.ingest.topics,
            snapshots: noSnapshots,
          }),
        });
        const dump = destination.dump();
        expect(dump['app.keyed'] ?? [], `${context}, window ${window}`).toEqual(keyed.dump());
        expect(dump['app.loose'] ?? [], `${context}, window ${window}`).toEqual(loose.dump());
        expect([...(destination.contents.retired['app.keyed'] ?? [])].sort(), context).toEqual(
          [...keyed.retired].sort(),
        );
        await bench.unit.release(to);
        from = to;
        if (window === 4) {
          await keyed.setShape(shape('keyed', ['id', 'a', 'b', 'c']));
          for (const row of Object.values(destination.contents.rows['app.keyed'] ?? {})) row.push(null);
        }
      }
      await bench.unit.clear();
    }
  }, 240_000);

  test('a shape that changes inside a window parts it there, each part in its own shape', async () => {
    const r = random();
    const bench = new Bench(['p.app.t']);
    const table = new TableRecords('p', shape('t', ['id', 'a']), 1, bench.register);
    const narrow = shape('t', ['id', 'a']);
    const wide = shape('t', ['id', 'a', 'b']);
    await table.setShape(narrow);
    const middle = await bench.commit(r, [
      { table, changes: [{ op: 't' }, { op: 'c', row: ['1', 'old'] }, { op: 'c', row: ['2', 'old'] }] },
    ]);
    await table.setShape(wide);
    const changed = await bench.commit(r, [{ table, changes: [{ op: 'u', row: ['2', undefined, 'more'] }] }]);
    await table.setShape(shape('t', ['id', 'a', 'b', 'c']));
    const to = await bench.commit(r, [{ table, changes: [{ op: 'c', row: ['3', 'new', null, 'last'] }] }]);
    const content = await bench.unit.content({ from: beforeEverything, to });
    expect(content.map(({ range }) => [range.from, range.to])).toEqual([
      [beforeEverything, middle],
      [middle, changed],
      [changed, to],
    ]);
    const merges = await mergeTables(bench.unit, content, bench.schemas, without);
    expect(merges.map(({ shape: { columns }, truncated }) => [columns.length, truncated])).toEqual([
      [2, true],
      [3, false],
      [4, false],
    ]);
    const states = await Promise.all(merges.map((merge) => collect(merge.states())));
    expect(states.map((part) => part.map((state) => 'values' in state && state.values))).toEqual([
      [
        ['1', 'old'],
        ['2', 'old'],
      ],
      [['2', undefined, 'more']],
      [['3', 'new', null, 'last']],
    ]);
    expect(states[1]![0]).toMatchObject({ fillFrom: ['2'] });
  });

  test('a chain of key changes takes unchanged values from the key the row had before the window', async () => {
    const r = random();
    const bench = new Bench(['p.app.t']);
    const table = new TableRecords('p', shape('t', ['id', 'a', 'b']), 4, bench.register);
    await table.setShape(shape('t', ['id', 'a', 'b']));
    const from = await bench.commit(r, [{ table, changes: [{ op: 'c', row: ['1', 'x', 'toast'] }] }]);
    const to = await bench.commit(r, [
      { table, changes: [{ op: 'k', oldKey: '1', row: ['2', undefined, undefined] }] },
      { table, changes: [{ op: 'u', row: ['2', 'y', undefined] }] },
      { table, changes: [{ op: 'k', oldKey: '2', row: ['3', undefined, undefined] }] },
      { table, changes: [{ op: 'c', row: ['1', 'another', 'row'] }] },
    ]);
    const range = { from, to };
    const [merge] = await mergeTables(bench.unit, await bench.unit.content(range), bench.schemas, without);
    const states = await collect(merge!.states());
    expect(states).toMatchObject([
      { op: 'upsert', key: ['1'], values: ['1', 'another', 'row'], fillFrom: null },
      { op: 'delete', key: ['2'] },
      { op: 'upsert', key: ['3'], values: ['3', 'y', undefined], fillFrom: ['1'] },
    ]);
  });

  test('an evicted row stays: with its last change, as its first after a truncate, and not when the source has it back', async () => {
    const r = random();
    const topic = 'p.app.t';
    const bench = new Bench([topic, evictionsOf(topic)]);
    const table = new TableRecords('p', shape('t', ['id', 'a']), 1, bench.register);
    await table.setShape(shape('t', ['id', 'a']));
    const before: Change[] = ['1', '3'].map((id) => ({ op: 'c', row: [id, 'x'] }));
    const from = await bench.commit(r, [{ table, changes: before }]);
    const to = await bench.commit(r, [
      {
        table,
        changes: [
          { op: 'e', row: ['1', null] },
          { op: 'c', row: ['2', 'y'] },
          { op: 'u', row: ['2', undefined] },
          { op: 'e', row: ['2', null] },
          { op: 'u', row: ['3', undefined] },
          { op: 'e', row: ['3', null] },
          { op: 't' },
          { op: 'c', row: ['1', 'back'] },
          { op: 'c', row: ['4', 'z'] },
          { op: 'e', row: ['4', null] },
          { op: 't' },
          { op: 't' },
          { op: 'c', row: ['5', 'last'] },
        ],
      },
    ]);
    const range = { from, to };
    const topics = { topics: bench.ingest.topics, snapshots: noSnapshots };
    const merges = await mergeTables(bench.unit, await bench.unit.content(range), bench.schemas, topics);
    expect(merges.map(({ truncated }) => truncated)).toEqual([false, true, true]);
    const states = await Promise.all(merges.map((merge) => collect(merge.states())));
    const seen = states.map((part) =>
      part
        .map((state) =>
          state.op === 'upsert'
            ? [state.op, state.key[0], state.values[1], state.retired ?? false]
            : [state.op, state.key[0]],
        )
        .sort((a, b) => (String(a[1]) < String(b[1]) ? -1 : 1)),
    );
    expect(seen).toEqual([
      [
        ['retire', '1'],
        ['upsert', '2', 'y', true],
        ['upsert', '3', undefined, true],
      ],
      [
        ['upsert', '1', 'back', false],
        ['upsert', '4', 'z', true],
      ],
      [['upsert', '5', 'last', false]],
    ]);
    const events = await Promise.all(merges.map((merge) => collect(merge.events())));
    expect(events.map((part) => part.map(({ op, key }) => op + key.join()))).toEqual([
      ['e1', 'c2', 'u2', 'e2', 'u3', 'e3'],
      ['t', 'c1', 'c4', 'e4'],
      ['t', 't', 'c5'],
    ]);
    const retired = states[0]!.find(({ key }) => key[0] === '2')!;
    expect(retired.position).toBe(events[0]!.find(({ op, key }) => op === 'e' && key[0] === '2')!.position);
  });

  test('append sinks see every change once, in order, a truncate once for all partitions', async () => {
    const r = random();
    const bench = new Bench(['p.app.t']);
    const table = new TableRecords('p', shape('t', ['id', 'a']), 3, bench.register);
    await table.setShape(shape('t', ['id', 'a']));
    const to = await bench.commit(r, [
      {
        table,
        changes: [
          { op: 'c', row: ['1', 'x'] },
          { op: 'c', row: ['2', 'y'] },
          { op: 'u', row: ['2', undefined] },
          { op: 'k', oldKey: '1', row: ['9', undefined] },
          { op: 'd', row: ['2', null] },
          { op: 't' },
          { op: 'c', row: ['4', 'z'] },
        ],
      },
    ]);
    const range = { from: beforeEverything, to };
    const [append] = await appendTables(bench.unit, await bench.unit.content(range), bench.schemas);
    const events: RowEvent[] = await collect(append!.events());
    expect(events.map(({ op, key, values, previousKey }) => [op, key, values, previousKey])).toEqual([
      ['c', ['1'], ['1', 'x'], null],
      ['c', ['2'], ['2', 'y'], null],
      ['u', ['2'], ['2', undefined], null],
      ['d', ['1'], ['1', null], null],
      ['c', ['9'], ['9', undefined], ['1']],
      ['d', ['2'], ['2', null], null],
      ['t', [], [], null],
      ['c', ['4'], ['4', 'z'], null],
    ]);
    const positions = events.map(({ position }) => position);
    expect([...positions].sort()).toEqual(positions);
    expect(events[0]!.commitTimeUs).toBeGreaterThan(1_700_000_000_000_000n);
  });

  test.each([0, 1 << 20])(
    'a full store that holds %d says so with a remedy and keeps nothing of the batch',
    async (heldBytes) => {
      const small = await WindowStore.open({
        directory: join(directory, 'small'),
        memoryBytes: 64 << 20,
        heldBytes,
        maxBytes: 1 << 20,
      });
      try {
        const unit = small.unit('x');
        const change = (n: number) => ({
          topic: 0,
          position: formatPosition({ epoch: 1, lsn: 1n, ordinal: n }),
          schemaId: 1,
          truncate: false,
          key: Buffer.from([n]),
          value: Buffer.alloc(300_000),
          oldKey: null,
          oldKeyEnd: null,
          unchanged: null,
          exact: null,
        });
        await unit.append([change(1), change(2), change(3)]);
        await expect(unit.append([change(4)])).rejects.toMatchObject({ code: 'TM406' });
        const full = unit.bytes;
        expect(full).toBeGreaterThan(900_000);
        await unit.release(formatPosition({ epoch: 1, lsn: 1n, ordinal: 3 }));
        await unit.append([change(4)]);
        expect(unit.bytes).toBeLessThan(full / 2);
      } finally {
        await small.close();
      }
    },
  );
});

async function collect<T>(batches: AsyncIterable<T[]>): Promise<T[]> {
  const all: T[] = [];
  for await (const batch of batches) all.push(...batch);
  return all;
}

test.each([0, 2])(
  'what the mark has passed is freed while newer rows stay readable, store %d',
  async (which) => {
    const unit = stores[which]!.unit(`u${serial++}`);
    const at = (ordinal: number) => formatPosition({ epoch: 1, lsn: 7n, ordinal });
    const rows = 130_000;
    for (let start = 0; start < rows; start += 10_000) {
      await unit.append(
        Array.from({ length: 10_000 }, (_, i) => ({
          topic: 0,
          position: at(start + i + 1),
          schemaId: 1,
          truncate: false,
          key: Buffer.from(String(start + i)),
          value: Buffer.from(`value ${start + i} ${'x'.repeat(1000)}`),
          oldKey: null,
          oldKeyEnd: null,
          unchanged: i % 2 === 0 ? '["a"]' : null,
          exact: null,
        })),
      );
    }
    const before = unit.bytes;
    await unit.release(at(110_000));
    expect(unit.bytes).toBeLessThan(before * 0.6);
    const range = { from: at(110_000), to: at(rows) };
    let next = 110_000;
    for await (const batch of unit.read(range, 0, 'position')) {
      for (const change of batch) {
        const { value, unchanged } = change.load();
        expect(value.toString('utf8', 0, 13)).toBe(`value ${next} `);
        expect(unchanged).toBe(next % 2 === 0 ? '["a"]' : null);
        next++;
      }
    }
    expect(next).toBe(rows);
    expect((await unit.content(range))[0]).toMatchObject({ changes: 20_000, borrows: false });
    await unit.release(at(rows));
    expect(unit.bytes).toBe(0);
    expect(await unit.content(range)).toEqual([]);
  },
);
