/**
 * Invariants under faults, over a real Kafka, registry and control database: nothing lost, nothing applied twice,
 * windows decided once, start offsets never guessed.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { TidemarkError } from '../../src/connector/failure.ts';
import type { SinkKind } from '../../src/connector/sink.ts';
import type { Delivery } from '../../src/deliver/delivery.ts';
import { releaseHold, requestHold, setTarget } from '../../src/deliver/holds.ts';
import type { ResolvedConfig } from '../../src/platform/resolved-config.ts';
import {
  type ChildOptions,
  type DeliveryProcess,
  deliver,
  type Harness,
  marksAt,
  spawnDelivery,
  startHarness,
  until,
} from './deliver-harness.ts';
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
const tags = shape('tags', ['id', 'name']);

async function openSource(shapes = [notes]): Promise<FakeSource> {
  const source = harness.source();
  await source.open(shapes);
  cleanups.push(() => source.close());
  return source;
}

async function start(
  config: ResolvedConfig,
  kind: SinkKind,
  onDelivery?: Parameters<typeof deliver>[2],
): Promise<Delivery> {
  const delivery = await deliver(config, kind, onDelivery);
  let stopped: Promise<void> | null = null;
  const stop = () => {
    stopped ??= delivery.stop();
    return stopped;
  };
  const once = { ...delivery, stop };
  cleanups.push(once.stop);
  return once;
}

const create = (id: number, title = `n${id}`, table = 'notes'): TableChange => ({
  table,
  change: { op: 'c', row: table === 'tags' ? [String(id), title] : [String(id), title, 'long text'] },
});

function* many(count: number, from = 0): Generator<TableChange> {
  for (let i = 0; i < count; i++) yield create(from + i);
}

async function ledgerUnit(source: FakeSource, unit = '*') {
  const { rows } = await harness.pool.query(
    'select * from tidemark.units where source_id = $1 and unit = $2',
    [source.sourceId, unit],
  );
  return rows[0] as { token: string; error_code: string | null; remedy: string | null; mark: string | null };
}

async function deliveries(source: FakeSource) {
  const { rows } = await harness.pool.query(
    'select * from tidemark.deliveries where source_id = $1 order by unit, sequence',
    [source.sourceId],
  );
  return rows as {
    sequence: string;
    from_position: string;
    to_position: string;
    state: string;
    attempts: number;
  }[];
}

function spawnChild(config: ResolvedConfig, options: ChildOptions): DeliveryProcess {
  const started = spawnDelivery(harness, config, options);
  cleanups.push(async () => {
    started.child.kill('SIGKILL');
    await started.exited;
  });
  return started;
}

describe('nothing is lost, nothing is applied twice', () => {
  test('a restart goes on from the mark', async () => {
    const source = await openSource();
    const store = new MemoryStore();
    const config = harness.config(source, [{}]);
    const first = await start(config, memorySink(store));
    await source.commit(many(100));
    await until('first', () => marksAt(first, source.position));
    await first.stop();
    await source.commit([{ table: 'notes', change: { op: 'u', row: ['5', 'changed', undefined] } }]);
    await source.commit(many(10, 1000));
    const windows = store.contents.windows.length;
    const second = await start(config, memorySink(store));
    await until('second', () => marksAt(second, source.position));
    expect(store.dump()).toEqual(source.expected());
    expect(store.contents.windows.length).toBeGreaterThan(windows);
    const recorded = await deliveries(source);
    for (const [i, { from_position, state }] of recorded.entries()) {
      expect(state).toBe('delivered');
      if (i > 0) expect(from_position >= recorded[i - 1]!.to_position).toBe(true);
    }
  });

  test.each(['mid-merge', 'after-merge', 'after-ledger'])('kill -9 at %s', async (failpoint) => {
    const source = await openSource();
    const config = harness.config(source, [{ windowMaxRecords: 40 }]);
    const storeFile = join(harness.directory, `${source.prefix}.json`);
    for (let i = 0; i < 10; i++) {
      await source.commit([
        ...many(20, i * 100),
        ...(i > 0
          ? [{ table: 'notes', change: { op: 'u' as const, row: ['1', `round ${i}`, undefined] } }]
          : []),
      ]);
    }
    const killed = spawnChild(config, { storeFile, failpoints: `${failpoint}=kill@3` });
    expect(await killed.exited).toBe('SIGKILL');
    const again = spawnChild(config, { storeFile });
    await until('all', async () => (await ledgerUnit(source)).mark === source.position);
    again.child.kill('SIGTERM');
    expect(await again.exited).toBe(0);
    const store = new MemoryStore(storeFile);
    expect(store.dump()).toEqual(source.expected());
    const recorded = await deliveries(source);
    expect(recorded.map(({ sequence }) => Number(sequence))).toEqual(recorded.map((_, i) => i + 1));
    expect(recorded.every(({ state }) => state === 'delivered')).toBe(true);
    const repeated = store.contents.windows.filter(({ alreadyHeld }) => alreadyHeld);
    // Merged but not recorded: the same Window, with the same bounds, answered alreadyHeld.
    expect(repeated.length).toBe(failpoint === 'after-merge' ? 1 : 0);
    for (const { sequence, from, to } of store.contents.windows) {
      expect(recorded[sequence - 1]).toMatchObject({ from_position: from, to_position: to });
    }
  });

  test('a destination that is down is retried, its error shown and taken back', async () => {
    const source = await openSource();
    const store = new MemoryStore();
    store.refuse = new TidemarkError('TM401', 'the warehouse is asleep');
    const delivery = await start(harness.config(source, [{}]), memorySink(store));
    await source.commit(many(5));
    await until('error', async () => (await ledgerUnit(source))?.error_code === 'TM401');
    expect(delivery.snapshot().destinations[0]!.units[0]).toMatchObject({ lastError: { code: 'TM401' } });
    expect(delivery.snapshot().destinations[0]!.units[0]!.backlogRecords).toBeGreaterThan(0);
    expect((await deliveries(source))[0]).toMatchObject({ state: 'decided' });
    store.refuse = null;
    await until('recovery', () => marksAt(delivery, source.position));
    expect(await ledgerUnit(source)).toMatchObject({ error_code: null, remedy: null });
    expect((await deliveries(source))[0]!.attempts).toBeGreaterThan(1);
  });

  test('Kafka, the registry and the control database may go away', async () => {
    const source = await openSource();
    const store = new MemoryStore();
    const delivery = await start(harness.config(source, [{}]), memorySink(store));
    let id = 0;
    const commit = () => {
      id += 10;
      return source.commit(many(5, id));
    };
    const round = async () => {
      await commit();
      await until('round', () => marksAt(delivery, source.position), 120_000);
      expect(store.dump()).toEqual(source.expected());
    };
    await round();
    await harness.stack.stopPart('postgres', { signal: 'SIGKILL' });
    await commit();
    await new Promise((resolve) => setTimeout(resolve, 2000));
    await harness.stack.startPart('postgres');
    await round();
    await harness.stack.stopPart('registry', { signal: 'SIGKILL' });
    await new Promise((resolve) => setTimeout(resolve, 1000));
    await harness.stack.startPart('registry');
    await round();
    await harness.stack.stopPart('kafka', { signal: 'SIGKILL' });
    const shown = () => delivery.snapshot().destinations[0]!.error?.code ?? null;
    await until('shown', () => shown() === 'TM301');
    await harness.stack.startPart('kafka');
    await round();
    await until('taken back', () => shown() === null);
  });
});

describe('ownership', () => {
  test('two workers share the tables, and one takes over what the other had', async () => {
    const source = await openSource([notes, tags]);
    const store = new MemoryStore();
    const config = harness.config(source, [{}]);
    const first = await start(config, memorySink(store, 'table'));
    await source.commit([...many(20), create(1, 'tag', 'tags')]);
    await until('alone', () => marksAt(first, source.position, 2));
    const second = await start(config, memorySink(store, 'table'));
    const units = (delivery: Delivery) => delivery.snapshot().destinations[0]!.units;
    await until('shared', () => units(first).length === 1 && units(second).length === 1);
    await source.commit([...many(20, 100), create(2, 'tag', 'tags')]);
    await until('both', () => marksAt(first, source.position) && marksAt(second, source.position));
    await first.stop();
    await source.commit([...many(20, 200), create(3, 'tag', 'tags')]);
    await until('taken over', () => marksAt(second, source.position, 2));
    expect(store.dump()).toEqual(source.expected());
  });

  test('a worker that comes or goes interrupts nobody whose tables stay', async () => {
    const shapes = Array.from({ length: 6 }, (_, i) => shape(`part${i}`, ['id', 'name']));
    const source = await openSource(shapes);
    const store = new MemoryStore();
    const config = harness.config(source, [{}]);
    /** Of each table: who delivered a Window of it, and when. */
    const seen = new Map<string, { by: string; at: number }[]>();
    const joins = (by: string) =>
      deliver(config, memorySink(store, 'table'), ({ unit }) => {
        seen.set(unit, [...(seen.get(unit) ?? []), { by, at: performance.now() }]);
      });
    let writing = true;
    let rows = 0;
    const first = await joins('first');
    const writer = (async () => {
      while (writing) {
        const id = String(++rows);
        await source.commit(shapes.map(({ name }) => ({ table: name, change: { op: 'c', row: [id, 'x'] } })));
        await sleep(20);
      }
    })();
    const units = (delivery: Delivery) => delivery.snapshot().destinations[0]?.units ?? [];
    await until('alone', () => units(first).length === 6 && seen.size === 6);
    await sleep(1000);
    const second = await joins('second');
    await until('shared', () => units(first).length === 3 && units(second).length === 3);
    await sleep(2000);
    const kept = new Set(units(first).map(({ unit }) => unit));
    await second.stop();
    const stoppedAt = performance.now();
    await until('taken over', () =>
      [...seen.values()].every((list) => list.at(-1)!.by === 'first' && list.at(-1)!.at > stoppedAt),
    );
    await sleep(500);
    writing = false;
    await writer;
    await until('all', () => marksAt(first, source.position, 6));
    await first.stop();
    expect(store.dump()).toEqual(source.expected());
    for (const [unit, list] of seen) {
      const longest = Math.max(...list.slice(1).map(({ at }, i) => at - list[i]!.at));
      const moves = list.filter(({ by }, i) => i > 0 && by !== list[i - 1]!.by).length;
      if (kept.has(unit)) {
        expect(moves, unit).toBe(0);
        expect(longest, `${unit} waited`).toBeLessThan(2000);
      } else {
        expect(moves, unit).toBe(2);
        expect(longest, `${unit} waited`).toBeLessThan(10_000);
      }
    }
  });

  test('a worker that was frozen and replaced writes nothing any more', async () => {
    const source = await openSource();
    const config = harness.config(source, [{}]);
    const storeFile = join(harness.directory, `${source.prefix}.json`);
    const frozen = spawnChild(config, { storeFile, failpoints: 'mid-merge=sleep:1000' });
    await until('joined', async () => (await ledgerUnit(source))?.mark);
    await source.commit(many(10));
    await until('merging', async () => (await deliveries(source)).length === 1);
    frozen.child.kill('SIGSTOP');
    const tokenBefore = (await ledgerUnit(source)).token;
    const successor = spawnChild(config, { storeFile });
    await until('taken over', async () => (await ledgerUnit(source)).mark === source.position, 60_000);
    expect(Number((await ledgerUnit(source)).token)).toBeGreaterThan(Number(tokenBefore));
    await source.commit([{ table: 'notes', change: { op: 'd', row: ['1', null, null] } }]);
    await until('next', async () => (await ledgerUnit(source)).mark === source.position);
    frozen.child.kill('SIGCONT');
    await source.commit([{ table: 'notes', change: { op: 'd', row: ['2', null, null] } }]);
    await new Promise((resolve) => setTimeout(resolve, 3000));
    await until('settled', async () => (await ledgerUnit(source)).mark === source.position);
    const recorded = await deliveries(source);
    expect(recorded.every(({ state }) => state === 'delivered')).toBe(true);
    expect(new MemoryStore(storeFile).dump()).toEqual(source.expected());
    successor.child.kill('SIGTERM');
    await successor.exited;
  });
});

describe('windows', () => {
  test('an idle source moves the mark without calling the sink', async () => {
    const source = await openSource();
    const store = new MemoryStore();
    const delivery = await start(harness.config(source, [{ cadenceMs: 60_000 }]), memorySink(store));
    await until('origin', () => marksAt(delivery, source.position));
    for (let i = 0; i < 5; i++) await source.heartbeat(61_000);
    const commitTime = () => delivery.snapshot().destinations[0]!.units[0]!.commitTimeUs;
    await until('idle', () => commitTime() === source.nowUs);
    expect(await deliveries(source)).toEqual([]);
    expect(store.contents.windows).toEqual([]);
  });

  test('cadence and size decide, and a window never splits a transaction', async () => {
    const source = await openSource();
    const store = new MemoryStore();
    const config = harness.config(source, [{ cadenceMs: 60_000, windowMaxRecords: 50 }]);
    const delivery = await start(config, memorySink(store));
    await source.commit(many(10));
    await source.commit(many(10, 100), { boundary: false });
    await source.commit(many(30, 200));
    const full = source.position;
    await until('full', () => marksAt(delivery, full));
    expect(store.contents.windows.map(({ to }) => to)).toEqual([full]);
    await source.commit(many(5, 300));
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(store.contents.windows.length).toBe(1);
    await source.commit(many(1, 400), { elapsedMs: 60_000 });
    await until('due', () => marksAt(delivery, source.position));
    expect(store.contents.windows.length).toBe(2);
    expect(store.dump()).toEqual(source.expected());
  });

  test('a table that appears later is picked up from its first record', async () => {
    const source = await openSource();
    const store = new MemoryStore();
    const delivery = await start(harness.config(source, [{}]), memorySink(store));
    await source.commit(many(5));
    await until('first', () => marksAt(delivery, source.position));
    await source.addTable(tags);
    await source.commit([...many(5, 10), create(1, 'tag', 'tags')]);
    await source.commit([create(2, 'tag', 'tags')]);
    await until('new table', () => marksAt(delivery, source.position));
    expect(store.dump()).toEqual(source.expected());
  });

  test('a hold stops all Units at exactly one Position, and release lets them go on', async () => {
    const source = await openSource([notes, tags]);
    const store = new MemoryStore();
    const config = harness.config(source, [{ cadenceMs: 3_600_000 }]);
    const delivery = await start(config, memorySink(store, 'table'));
    await until('units', () => marksAt(delivery, source.position, 2));
    await source.commit([...many(5), create(1, 'tag', 'tags')]);
    const name = { sourceId: source.sourceId, destination: 'warehouse', holder: 'verify' };
    await requestHold(harness.pool, name, 60_000);
    await expect(requestHold(harness.pool, { ...name, holder: 'other' }, 1000)).rejects.toMatchObject({
      code: 'TM408',
    });
    // A consistent point between two transactions: the next commit's LSN, ordinal 0.
    const target = `${source.position.slice(0, 26)}${'0'.repeat(16)}` as typeof source.position;
    await source.commit(many(5, 100));
    const later = source.position;
    const consistent = `${later.slice(0, 26)}${'0'.repeat(16)}` as typeof source.position;
    expect(consistent > target).toBe(true);
    await setTarget(harness.pool, name, consistent);
    const marks = () => delivery.snapshot().destinations[0]!.units.map(({ mark }) => mark);
    await until('aligned', () => marks().every((mark) => mark === consistent));
    expect(Object.keys(store.contents.rows['app.notes']!).length).toBe(5);
    await source.commit(many(5, 200), { elapsedMs: 3_600_000 });
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(marks().every((mark) => mark === consistent)).toBe(true);
    await releaseHold(harness.pool, name);
    await until('released', () => marksAt(delivery, source.position, 2));
    expect(store.dump()).toEqual(source.expected());
  });
});

describe('what cannot go on stops and says so', () => {
  /** With the ten rows from before, and nothing behind what is lost. */
  async function stopsAt(mark: string, source: FakeSource, store: MemoryStore): Promise<void> {
    await until('error', async () => (await ledgerUnit(source)).error_code === 'TM307');
    expect((await ledgerUnit(source)).mark).toBe(mark);
    expect(Object.keys(store.contents.rows['app.notes']!).length).toBe(10);
  }

  test('TM307: Kafka expired records that were not received; nothing is skipped', async () => {
    const source = await openSource();
    const store = new MemoryStore();
    const config = harness.config(source, [{}]);
    const first = await start(config, memorySink(store));
    await source.commit(many(10));
    await until('first', () => marksAt(first, source.position));
    await first.stop();
    const mark = source.position;
    await source.commit(many(10, 100));
    await source.expire('notes');
    await source.commit(many(10, 200));
    await start(config, memorySink(store));
    await stopsAt(mark, source, store);
  });

  test('TM307 also while Progress is read once more from where an old mark is', async () => {
    const others = Array.from({ length: 8 }, (_, i) => shape(`more${i}`, ['id', 'title']));
    const source = await openSource([notes, ...others]);
    const store = new MemoryStore();
    const config = harness.config(source, [{}]);
    const first = await start(config, memorySink(store));
    await source.commit(many(10));
    await until('first', () => marksAt(first, source.position));
    await first.stop();
    const mark = source.position;
    // More than a follower without a mark looks back at.
    for (let i = 0; i < 150; i++) await source.commit([create(1000 + i)]);
    await source.expire('notes');
    await start(config, memorySink(store));
    await stopsAt(mark, source, store);
  });

  test('an expired log without undelivered records is no loss', async () => {
    const source = await openSource();
    const store = new MemoryStore();
    const config = harness.config(source, [{}]);
    const first = await start(config, memorySink(store));
    await source.commit(many(10));
    await until('first', () => marksAt(first, source.position));
    await first.stop();
    await source.expire('notes');
    const second = await start(config, memorySink(store));
    await source.commit(many(10, 200));
    await until('second', () => marksAt(second, source.position));
    expect(store.dump()).toEqual(source.expected());
  });

  test('TM404: a destination that lost what it acknowledged, or is ahead of the ledger', async () => {
    const source = await openSource();
    const store = new MemoryStore();
    const config = harness.config(source, [{}]);
    const first = await start(config, memorySink(store));
    await source.commit(many(10));
    await until('first', () => marksAt(first, source.position));
    const backup = structuredClone(store.contents);
    await source.commit(many(10, 100));
    await until('second', () => marksAt(first, source.position));
    await first.stop();
    const newest = structuredClone(store.contents);
    store.contents = backup;
    await source.commit(many(10, 200));
    const second = await start(config, memorySink(store));
    await until('behind', async () => (await ledgerUnit(source)).error_code === 'TM404');
    await second.stop();
    expect(store.contents).toEqual(backup);
    store.contents = newest;
    const third = await start(config, memorySink(store));
    await until('mended', () => marksAt(third, source.position));
    expect(store.dump()).toEqual(source.expected());
  });

  test('a new epoch of the source is never crossed', async () => {
    const source = await openSource();
    const store = new MemoryStore();
    const delivery = await start(harness.config(source, [{}]), memorySink(store));
    await source.commit(many(10));
    const mark = source.position;
    await until('first', () => marksAt(delivery, mark));
    await source.newEpoch();
    await source.commit(many(10, 100));
    await until('error', async () => (await ledgerUnit(source)).error_code === 'TM204');
    expect((await ledgerUnit(source)).mark).toBe(mark);
  });

  test('a table that was subscribed late is not delivered from the middle', async () => {
    const source = await openSource([notes, tags]);
    const store = new MemoryStore();
    const first = await start(harness.config(source, [{ tables: ['app.notes'] }]), memorySink(store));
    await source.commit([...many(5), create(1, 'tag', 'tags')]);
    await until('first', () => marksAt(first, source.position));
    await first.stop();
    await start(harness.config(source, [{ tables: ['app.*'] }]), memorySink(store));
    await source.commit([create(2, 'tag', 'tags')]);
    await until('error', async () => (await ledgerUnit(source)).error_code === 'TM307');
    expect((await ledgerUnit(source)).remedy).toMatch(/rebuild/);
  });

  test('TM406: a transaction beyond the cap of the window store', async () => {
    const source = await openSource();
    const store = new MemoryStore();
    const config = harness.config(source, [{}]);
    config.deliver = { ...config.deliver, spillMaxBytes: 1 << 20 };
    await start(config, memorySink(store));
    await source.commit(many(20_000));
    await until('error', async () => (await ledgerUnit(source))?.error_code === 'TM406');
    expect((await ledgerUnit(source)).remedy).toMatch(/spill\.max\.bytes/);
    expect(store.contents.windows).toEqual([]);
  });
});
