/**
 * Nothing is applied twice or out of order, nothing is lost: random Windows against a model in memory, with
 * duplicates, killed sessions and second owners. TIDEMARK_SEED replays one seed.
 */
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import type { TidemarkError } from '../../src/connector/failure.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import type {
  Cell,
  MergeSink,
  MergeTable,
  MergeWindow,
  Readable,
  Receipt,
  Row,
  RowCount,
  RowState,
} from '../../src/connector/sink.ts';
import {
  at,
  generator,
  mergeTable,
  openSink,
  readAll,
  shape,
  sorted,
  startPostgres,
  type TestServer,
  windowOf,
} from './postgres-sink-fixture.ts';

vi.setConfig({ testTimeout: 300_000 });

let server: TestServer;
beforeAll(async () => {
  server = await startPostgres();
}, 60_000);
afterAll(() => server.stop());

type Random = ReturnType<typeof generator>;

const texts = [
  '',
  'plain',
  'tab\t',
  'line\n',
  '\\N',
  '\\',
  "it's",
  'naïve 😀',
  'cr\r',
  'NULL',
  '{}',
  'x'.repeat(3000),
];
const cell = (random: Random): Cell => (random.chance(0.15) ? null : random.pick(texts));

interface LiveRow {
  values: Row;
  /** Key of the row before this Window that its untouched columns come from. */
  origin: Cell[] | null;
  untouched: Set<number>;
}

/** A table with a key as the source sees it: equal keys by value, states by text, as the compaction gives them. */
class KeyedModel {
  readonly shape: TableShape;
  readonly #random: Random;
  /** Makes a key; two texts of one value may come out. */
  readonly #makeKey: (n: number) => Cell[];
  readonly #identity: (key: Cell[]) => string;
  #live = new Map<string, LiveRow>();
  #touched = new Map<string, Cell[]>();
  #truncated = false;

  constructor(
    table: TableShape,
    random: Random,
    makeKey: (n: number) => Cell[],
    identity: (key: Cell[]) => string,
  ) {
    this.shape = table;
    this.#random = random;
    this.#makeKey = makeKey;
    this.#identity = identity;
  }

  startWindow(): void {
    this.#touched.clear();
    this.#truncated = false;
    for (const row of this.#live.values()) {
      row.origin = this.#key(row);
      row.untouched = new Set(this.shape.columns.keys());
    }
  }

  operate(space: number): void {
    const random = this.#random;
    const roll = random.below(100);
    if (roll === 0 && random.chance(0.2)) {
      this.#live.clear();
      this.#touched.clear();
      this.#truncated = true;
      return;
    }
    const key = this.#makeKey(random.below(space));
    const id = this.#identity(key);
    const row = this.#live.get(id);
    if (!row) {
      const values = this.shape.columns.map((column) => (column.key ? null : cell(random)));
      this.shape.keyColumns.forEach((column, k) => {
        values[column] = key[k]!;
      });
      this.#live.set(id, { values, origin: null, untouched: new Set() });
      this.#touch(key);
    } else if (roll < 20) {
      this.#touch(this.#key(row));
      this.#live.delete(id);
    } else if (roll < 40) {
      this.#move(row, this.#makeKey(random.below(space)));
    } else {
      this.shape.columns.forEach((column, i) => {
        if (column.key || random.chance(0.6)) return;
        row.values[i] = cell(random);
        row.untouched.delete(i);
      });
      this.#touch(this.#key(row));
    }
  }

  /** A key change; onto a taken key it becomes a swap of the two. */
  #move(row: LiveRow, to: Cell[]): void {
    const from = this.#key(row);
    const taken = this.#live.get(this.#identity(to));
    const target = taken ? this.#key(taken) : to;
    this.#live.delete(this.#identity(from));
    if (taken && taken !== row) this.#place(taken, from);
    this.#place(row, taken === row ? to : target);
    this.#touch(from);
    this.#touch(target);
    this.#touch(to);
  }

  #place(row: LiveRow, key: Cell[]): void {
    this.shape.keyColumns.forEach((column, k) => {
      row.values[column] = key[k]!;
    });
    this.#live.set(this.#identity(key), row);
  }

  #key(row: LiveRow): Cell[] {
    return this.shape.keyColumns.map((column) => row.values[column]!);
  }

  #touch(key: Cell[]): void {
    this.#touched.set(JSON.stringify(key), key);
  }

  table(): MergeTable {
    const states = [...this.#touched.values()].map((key): RowState => {
      const row = this.#live.get(this.#identity(key));
      if (!row || JSON.stringify(this.#key(row)) !== JSON.stringify(key))
        return { op: 'delete', key, position: at(1) };
      const omit = row.origin !== null && this.#random.chance(0.7);
      const values = row.values.map((value, i) =>
        omit && row.untouched.has(i) && !this.shape.columns[i]!.key && this.#random.chance(0.8)
          ? undefined
          : value,
      );
      return {
        op: 'upsert',
        key,
        values,
        fillFrom: values.includes(undefined) ? row.origin : null,
        position: at(1),
      };
    });
    states.sort(() => this.#random.below(3) - 1);
    return mergeTable(this.shape, { truncated: this.#truncated, states, batch: 1 + this.#random.below(300) });
  }

  rows(): Row[] {
    return [...this.#live.values()].map(({ values }) => [...values]);
  }
}

class KeylessModel {
  readonly shape = shape('keyless', 'log', ['body json', 'line text', 'n numeric']);
  readonly #random: Random;
  #copies = new Map<string, number>();
  #net = new Map<string, number>();
  #truncated = false;

  constructor(random: Random) {
    this.#random = random;
  }

  startWindow(): void {
    this.#net.clear();
    this.#truncated = false;
  }

  operate(space: number): void {
    const random = this.#random;
    if (random.chance(0.002)) {
      this.#copies.clear();
      this.#net.clear();
      this.#truncated = true;
      return;
    }
    const removing = random.chance(0.4) && this.#copies.size > 0;
    const n = random.below(space);
    const image = removing
      ? random.pick([...this.#copies.keys()])
      : JSON.stringify([
          n % 2 ? '{"a": 1}' : '{"a":1}',
          n % 5 ? `line ${n}` : cell(random),
          random.pick(['1.0', '1', null]),
        ]);
    const change = removing ? -1 : 1 + random.below(3);
    const copies = (this.#copies.get(image) ?? 0) + change;
    if (copies === 0) this.#copies.delete(image);
    else this.#copies.set(image, copies);
    this.#net.set(image, (this.#net.get(image) ?? 0) + change);
  }

  table(): MergeTable {
    const counts: RowCount[] = [...this.#net].map(([image, count]) => ({
      values: JSON.parse(image) as Row,
      count,
    }));
    return mergeTable(this.shape, { truncated: this.#truncated, counts, batch: 1 + this.#random.below(300) });
  }

  rows(): Row[] {
    return [...this.#copies].flatMap(([image, n]) =>
      Array.from({ length: n }, () => JSON.parse(image) as Row),
    );
  }
}

async function run(seed: number): Promise<void> {
  const random = generator(seed);
  const exact = (key: Cell[]) => JSON.stringify(key);
  const models = [
    new KeyedModel(
      shape('keyed', 'rows', ['id integer key', 'a text', 'b text', 'c text']),
      random,
      (n) => [String(n)],
      exact,
    ),
    new KeyedModel(
      shape('keyed', 'Pairs', ['note text', 'amount numeric key', 'big text', 'who text key']),
      random,
      (n) => [`${n % 7}${random.pick(['', '.0', '.00'])}`, `w\t${Math.floor(n / 7)}`],
      ([amount, who]) => `${Number(amount)} ${who}`,
    ),
    new KeyedModel(shape('keyed', 'only', ['id text key']), random, (n) => [`k\\${n}`], exact),
    new KeylessModel(random),
  ];
  const database = await server.database();
  const admin = await server.connect('postgres');
  let kill: string | null = null;
  const failpoint = async (name: string) => {
    if (kill !== name) return;
    kill = null;
    await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [
      database,
    ]);
  };
  let sink: MergeSink & Readable = await openSink(server, database, { failpoint });
  let fencingToken = 1n;
  /** As a worker does it: a session killed after its commit fails a later Window's first statement. */
  const merge = async (window: MergeWindow, tries = 3): Promise<Receipt> => {
    try {
      return await sink.mergeWindow(window);
    } catch (error) {
      if (tries === 1 || (error as TidemarkError).retry !== 'transient') throw error;
      return merge(window, tries - 1);
    }
  };
  for (let sequence = 1; sequence <= 12; sequence++) {
    const large = random.chance(0.3);
    for (const model of models) {
      model.startWindow();
      const operations = large && random.chance(0.7) ? 3000 : random.below(60);
      for (let i = 0; i < operations; i++) model.operate(large ? 3000 : 40);
    }
    if (random.chance(0.1)) {
      const previous = sink;
      sink = await openSink(server, database, { failpoint });
      await previous.close();
      fencingToken++;
    }
    const tables = models.map((model) => model.table());
    const window = windowOf(sequence, tables, { fencingToken });
    if (random.chance(0.3)) {
      kill = random.pick([
        'postgres-sink-locked',
        'postgres-sink-staged',
        'postgres-sink-before-commit',
        'postgres-sink-committed',
      ]);
    }
    const receipt = await merge(window);
    expect(receipt.position).toBe(at(sequence));
    if (random.chance(0.2)) {
      expect(await merge(window)).toEqual({ ...receipt, alreadyHeld: true });
    }
    for (const model of models) {
      expect(sorted(await readAll(sink, model.shape, at(sequence))), model.shape.name).toEqual(
        sorted(model.rows()),
      );
    }
  }
  await Promise.all([sink.close(), admin.end()]);
}

const replay = process.env.TIDEMARK_SEED;
const seeds = replay ? [Number(replay)] : Array.from({ length: 25 }, (_, i) => 20_261 + i * 7919);

test.each(seeds)('random Windows give the source’s rows (TIDEMARK_SEED=%d)', (seed) => run(seed));
