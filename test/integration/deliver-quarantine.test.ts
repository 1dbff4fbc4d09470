/** Rows that a destination refuses: set aside whole, the rest goes on, and nothing newer is ever overwritten. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Row } from '../../src/connector/sink.ts';
import type { Delivery } from '../../src/deliver/delivery.ts';
import { releaseHold, requestHold, setTarget } from '../../src/deliver/holds.ts';
import { QuarantineLedger } from '../../src/deliver/quarantine/quarantine-ledger.ts';
import { topicNames } from '../../src/publish/record-format.ts';
import { random } from '../unit/deliver-random.ts';
import { deliver, type Harness, marksAt, startHarness, until } from './deliver-harness.ts';
import { MemoryStore, memorySink } from './deliver-memory-sink.ts';
import { shape } from './deliver-records.ts';
import type { FakeSource, TableChange } from './deliver-source.ts';

let harness: Harness;
const cleanups: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  harness = await startHarness();
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});
afterAll(async () => {
  await harness?.stop();
});

const notes = shape('notes', ['id', 'title', 'body']);

interface Scene {
  source: FakeSource;
  store: MemoryStore;
  delivery: Delivery;
  ledger: QuarantineLedger;
  /** Commits, and waits until the destination stands there. */
  commit(...changes: TableChange['change'][]): Promise<void>;
  entries(all?: boolean): ReturnType<QuarantineLedger['list']>;
  replay(): Promise<void>;
  rows(): string[];
}

async function scene(settings = {}): Promise<Scene> {
  const source = harness.source();
  await source.open([notes]);
  cleanups.push(() => source.close());
  const store = new MemoryStore();
  const delivery = await deliver(harness.config(source, [settings]), memorySink(store));
  cleanups.push(() => delivery.stop());
  const ledger = new QuarantineLedger(harness.pool);
  const entries = (all = false) => ledger.list(source.sourceId, { destination: 'warehouse', all });
  const untilOrWhyNot = (what: string, probe: () => boolean | Promise<boolean>) =>
    until(what, probe).catch(async (error: Error) => {
      const failures = delivery.snapshot().destinations[0]!.units.map(({ lastError }) => lastError);
      throw new Error(`${error.message}: ${JSON.stringify({ failures, entries: await entries() })}`);
    });
  return {
    source,
    store,
    delivery,
    ledger,
    entries,
    async commit(...changes) {
      await source.commit(changes.map((change) => ({ table: 'notes', change })));
      await untilOrWhyNot('delivered', () => marksAt(delivery, source.position));
    },
    async replay() {
      const ids = (await entries()).map(({ id }) => id);
      await ledger.ask(source.sourceId, ids, 'replaying');
      await untilOrWhyNot('replayed', async () =>
        (await entries()).every(({ state }) => state !== 'replaying'),
      );
    },
    rows: () => store.dump()['app.notes'] ?? [],
  };
}

/** Somebody deletes what is in the quarantine topic. */
async function expireDeadLetters(source: FakeSource): Promise<void> {
  const admin = harness.kafka.admin();
  await admin.connect();
  try {
    const { quarantine } = topicNames(source.prefix);
    const [end] = await admin.fetchTopicOffsets(quarantine);
    expect(end!.high).not.toBe('0');
    await admin.deleteTopicRecords({ topic: quarantine, partitions: [{ partition: 0, offset: end!.high }] });
  } finally {
    await admin.disconnect();
  }
}

async function inContext(context: string, work: Promise<void>): Promise<void> {
  await work.catch((error: Error) => {
    throw new Error(`${context}: ${error.message}`, { cause: error });
  });
}

const has = (word: string) => (_: string, row: Row) => row.includes(word);

describe('quarantine', () => {
  test('a refused row is set aside, the Window goes on, and a replay brings it with what came since', async () => {
    const { store, commit, entries, replay, rows, source } = await scene();
    store.refuseRow = has('bad');
    await commit(
      { op: 'c', row: ['1', 'bad', 'long 1'] },
      { op: 'c', row: ['2', 'good', 'long 2'] },
      { op: 'c', row: ['3', 'bad', 'long 3'] },
    );
    expect(rows()).toEqual(['["2","good","long 2"]']);
    expect(await entries()).toMatchObject([
      { table: 'app.notes', state: 'held', reason: 'not today', changes: 1 },
      { table: 'app.notes', state: 'held', changes: 1 },
    ]);
    // What does not bring the row whole waits, though the destination would take it.
    await commit({ op: 'u', row: ['1', 'mended', undefined] }, { op: 'c', row: ['4', 'good', null] });
    expect(rows()).toEqual(['["2","good","long 2"]', '["4","good",null]']);
    expect((await entries()).map(({ changes }) => changes).sort()).toEqual([1, 2]);
    await replay();
    // 3 is still refused, and waits on.
    expect(rows()).toContain('["1","mended","long 1"]');
    expect(await entries()).toMatchObject([{ state: 'held', changes: 1 }]);
    store.refuseRow = () => false;
    await replay();
    expect(store.dump()).toEqual(source.expected());
    expect(await entries()).toEqual([]);
    const before = rows();
    await commit({ op: 'u', row: ['1', 'later', undefined] });
    expect(store.dump()).toEqual(source.expected());
    expect(rows()).not.toEqual(before);
  });

  test('a row that comes whole again, or goes, makes what waits unnecessary, and no replay overwrites it', async () => {
    const { store, commit, entries, replay, source, ledger } = await scene();
    store.refuseRow = has('bad');
    await commit(
      { op: 'c', row: ['1', 'bad', 'x'] },
      { op: 'c', row: ['2', 'bad', 'x'] },
      { op: 'c', row: ['3', 'bad', 'x'] },
    );
    const ids = (await entries()).map(({ id }) => id);
    await commit({ op: 'u', row: ['1', 'good', 'whole'] }, { op: 'd', row: ['2', null, null] });
    await commit({ op: 'u', row: ['3', 'bad', 'still'] });
    expect((await entries(true)).map(({ state }) => state).sort()).toEqual([
      'held',
      'superseded',
      'superseded',
    ]);
    store.refuseRow = () => false;
    await ledger.ask(source.sourceId, ids, 'replaying');
    await until('replayed', async () => (await entries()).length === 0);
    await replay();
    expect(store.dump()).toEqual(source.expected());
  });

  test('rows under both keys of a change that borrows values wait together', async () => {
    const { store, commit, entries, replay, source } = await scene();
    await commit({ op: 'c', row: ['1', 'good', 'long'] }, { op: 'c', row: ['5', 'good', 'long 5'] });
    store.refuseRow = has('bad');
    // Refused under its new key: the row under the old one supplies what is missing, so it stays.
    await commit({ op: 'k', oldKey: '1', row: ['2', 'bad', undefined] });
    expect(store.dump()['app.notes']).toEqual(['["1","good","long"]', '["5","good","long 5"]']);
    // Refused under the old key, then moved on.
    await commit({ op: 'u', row: ['5', 'bad', 'longer'] });
    await commit({ op: 'k', oldKey: '5', row: ['6', 'good', undefined] });
    await commit({ op: 'u', row: ['6', 'better', undefined] });
    expect((await entries()).length).toBe(4);
    store.refuseRow = () => false;
    await replay();
    expect(store.dump()).toEqual(source.expected());
  });

  test('rows that a change of key binds are replayed together or not at all', async () => {
    const { store, commit, entries, replay, source, ledger, rows } = await scene();
    await commit({ op: 'c', row: ['1', 'good', 'long'] }, { op: 'c', row: ['7', 'good', 'other'] });
    store.refuseRow = has('bad');
    await commit(
      { op: 'k', oldKey: '1', row: ['2', 'bad', undefined] },
      { op: 'u', row: ['7', 'bad', null] },
    );
    const before = rows();
    const ids = new Map((await entries()).map(({ id, reason }) => [reason, id]));
    const oldKey = ids.get('a row in Quarantine got its key from this one, or this one from it')!;
    // Refused again under its new key, the row stays under the old one, which would supply what is missing.
    await replay();
    expect(rows()).toEqual(before);
    expect((await entries()).map(({ state }) => state)).toEqual(['held', 'held', 'held']);
    store.refuseRow = () => false;
    // One of them alone: the other one still waits.
    await ledger.ask(source.sourceId, [oldKey], 'replaying');
    await until('tried', async () => (await entries()).every(({ state }) => state === 'held'));
    expect(rows()).toEqual(before);
    expect((await entries()).find(({ id }) => id === oldKey)!.reason).toMatch(/binds it to entry \d+, which/);
    await replay();
    expect(store.dump()).toEqual(source.expected());
    expect(await entries()).toEqual([]);
  });

  test.each(['TM407', 'TM306'])(
    'a replay that fails with %s goes on without what is dropped from it',
    async (code) => {
      const { store, commit, entries, source, ledger, delivery } = await scene();
      await commit({ op: 'c', row: ['1', 'good', 'long'] });
      store.refuseRow = has('bad');
      await commit({ op: 'u', row: ['1', 'bad', undefined] });
      store.refuseRow = () => false;
      if (code === 'TM407') {
        // Somebody deletes the row at the destination.
        delete store.contents.rows['app.notes']!['["1"]'];
      } else await expireDeadLetters(source);
      const { id } = (await entries())[0]!;
      await ledger.ask(source.sourceId, [id], 'replaying');
      const unit = () => delivery.snapshot().destinations[0]!.units[0]!;
      await until(code, () => unit().lastError?.code === code);
      await ledger.ask(source.sourceId, [id], 'dropped');
      await until('it goes on', () => unit().lastError === null);
      expect(await entries()).toMatchObject([{ state: 'dropped' }]);
      await commit({ op: 'u', row: ['1', 'good', 'whole'] });
      expect(store.dump()).toEqual(source.expected());
    },
  );

  test('a dropped row stays away, with what builds on it, until it comes whole', async () => {
    const { store, commit, entries, source, ledger, rows } = await scene();
    store.refuseRow = has('bad');
    await commit({ op: 'c', row: ['1', 'bad', 'x'] });
    await ledger.ask(source.sourceId, [(await entries())[0]!.id], 'dropped');
    await commit({ op: 'u', row: ['1', 'good', undefined] }, { op: 'c', row: ['2', 'good', null] });
    expect(rows()).toEqual(['["2","good",null]']);
    await commit({ op: 'u', row: ['1', 'good', 'whole'] });
    expect(store.dump()).toEqual(source.expected());
  });

  test('nothing comes out of it while somebody compares the destination', async () => {
    const { store, commit, entries, source, ledger, rows } = await scene();
    store.refuseRow = has('bad');
    await commit({ op: 'c', row: ['1', 'bad', 'x'] });
    store.refuseRow = () => false;
    const hold = { sourceId: source.sourceId, destination: 'warehouse', holder: 'me' };
    await requestHold(harness.pool, hold, 60_000);
    await setTarget(harness.pool, hold, source.position);
    await ledger.ask(source.sourceId, [(await entries())[0]!.id], 'replaying');
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(rows()).toEqual([]);
    await releaseHold(harness.pool, hold);
    await until('replayed', async () => (await entries()).length === 0);
    expect(store.dump()).toEqual(source.expected());
  });

  test('too many refusals stop the Unit', async () => {
    const { source, store, delivery } = await scene({ quarantineMaxRows: 3 });
    store.refuseRow = () => true;
    await source.commit(
      Array.from({ length: 5 }, (_, i) => ({
        table: 'notes',
        change: { op: 'c', row: [String(i), 'x', null] },
      })),
    );
    await until('TM412', () => delivery.snapshot().destinations[0]!.units[0]?.lastError?.code === 'TM412');
    expect(store.dump()).toEqual({});
  });

  test('a truncate makes everything that waits unnecessary', async () => {
    const { store, commit, entries, source } = await scene();
    store.refuseRow = has('bad');
    await commit({ op: 'c', row: ['1', 'bad', 'x'] });
    await commit({ op: 't' }, { op: 'c', row: ['1', 'good', 'y'] });
    expect(await entries()).toEqual([]);
    expect(store.dump()).toEqual(source.expected());
  });

  test('a truncate frees what came before it, and not the row that a later one takes its values from', async () => {
    const { store, commit, entries, replay, source } = await scene();
    store.refuseRow = has('bad');
    await commit({ op: 'c', row: ['5', 'bad', 'before'] }, { op: 'c', row: ['6', 'bad', 'before'] });
    await commit(
      { op: 't' },
      { op: 'c', row: ['5', 'good', 'long 5'] },
      { op: 'k', oldKey: '5', row: ['7', 'bad', undefined] },
      { op: 'c', row: ['1', 'good', 'long 1'] },
      { op: 'k', oldKey: '1', row: ['2', 'bad', undefined] },
      { op: 'c', row: ['6', 'good', 'long 6'] },
    );
    expect(store.dump()['app.notes']).toEqual(['["6","good","long 6"]']);
    expect((await entries()).length).toBe(4);
    store.refuseRow = () => false;
    await replay();
    expect(store.dump()).toEqual(source.expected());
    expect(await entries()).toEqual([]);
  });

  test('random histories: after replays the destination is the source', async () => {
    const r = random();
    const chance = (share: number) => r.next() < share;
    const { store, commit, replay, source, entries } = await scene();
    const replayAll = (context: string) => {
      store.refuseRow = () => false;
      return inContext(context, replay());
    };
    const words = ['good', 'bad', 'fine'];
    for (let step = 0; step < 60; step++) {
      const context = `seed ${r.seed}, step ${step}`;
      store.refuseRow = chance(0.7) ? has('bad') : () => false;
      const changes: TableChange['change'][] = [];
      const live = new Set([...source.tables.get('notes')!.records.rows.values()].map(([id]) => id!));
      for (let i = 0; i < 1 + r.integer(6); i++) {
        const id = String(r.integer(8));
        const title = r.pick(words);
        const body = `body ${step}.${i}`;
        if (chance(0.05)) {
          changes.push({ op: 't' });
          live.clear();
        } else if (!live.has(id)) {
          changes.push({ op: 'c', row: [id, title, body] });
          live.add(id);
        } else if (chance(0.2)) {
          changes.push({ op: 'd', row: [id, null, null] });
          live.delete(id);
        } else if (chance(0.3)) {
          const next = String(r.integer(8));
          if (live.has(next)) continue;
          changes.push({ op: 'k', oldKey: id, row: [next, title, chance(0.7) ? undefined : body] });
          live.delete(id);
          live.add(next);
        } else changes.push({ op: 'u', row: [id, title, chance(0.6) ? undefined : body] });
      }
      if (changes.length === 0) continue;
      await inContext(context, commit(...changes));
      if (!chance(0.15)) continue;
      await replayAll(context);
      expect(store.dump()['app.notes'] ?? [], context).toEqual(source.expected()['app.notes'] ?? []);
      expect(await entries(), context).toEqual([]);
    }
    await replayAll(`seed ${r.seed}`);
    expect(store.dump(), `seed ${r.seed}`).toEqual(source.expected());
  });
});
