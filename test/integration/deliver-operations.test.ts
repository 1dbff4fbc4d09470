/** What an operator does to a destination: pause and resume, skip, go back to what it holds. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { TidemarkError } from '../../src/connector/failure.ts';
import type { MergeSink, SinkKind } from '../../src/connector/sink.ts';
import type { Delivery } from '../../src/deliver/delivery.ts';
import { readDeliveries, readDestinations } from '../../src/deliver/destination-list.ts';
import { type MoveOutcome, moveOutcomes, requestMove } from '../../src/deliver/moves.ts';
import { pauseDestination, resumeDestination } from '../../src/deliver/pauses.ts';
import { QuarantineLedger } from '../../src/deliver/quarantine/quarantine-ledger.ts';
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

const notes = shape('notes', ['id', 'title']);

function* many(count: number, from = 0): Generator<TableChange> {
  for (let i = from; i < from + count; i++)
    yield { table: 'notes', change: { op: 'c', row: [String(i), `n${i}`] } };
}

interface Scene {
  source: FakeSource;
  store: MemoryStore;
  delivery: Delivery;
  place: { sourceId: string; destination: string };
  restart(meanwhile?: () => Promise<void>): Promise<void>;
  destination(): Promise<Awaited<ReturnType<typeof readDestinations>>[number]>;
}

async function scene(settings = {}): Promise<Scene> {
  const source = harness.source();
  await source.open([notes]);
  cleanups.push(() => source.close());
  const store = new MemoryStore();
  const config = harness.config(source, [settings]);
  const found: Scene = {
    source,
    store,
    delivery: await deliver(config, memorySink(store)),
    place: { sourceId: source.sourceId, destination: 'warehouse' },
    async restart(meanwhile = async () => {}) {
      await found.delivery.stop();
      await meanwhile();
      found.delivery = await deliver(config, memorySink(store));
    },
    destination: async () => (await readDestinations(harness.pool, source.sourceId))[0]!,
  };
  cleanups.push(() => found.delivery.stop());
  return found;
}

const settled = ({ source, delivery }: Scene) => until('delivered', () => marksAt(delivery, source.position));
const errorCode = ({ delivery }: Scene) => delivery.snapshot().destinations[0]!.units[0]?.lastError?.code;

describe('pause', () => {
  test('nothing is written until it is resumed, over restarts too', async () => {
    const s = await scene();
    await s.source.commit(many(3));
    await settled(s);
    await pauseDestination(harness.pool, s.place, { by: 'me', reason: 'maintenance' });
    await s.source.commit(many(3, 10));
    await s.restart();
    await until('paused', () => s.delivery.snapshot().destinations[0]!.paused);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(s.store.dump()['app.notes']).toHaveLength(3);
    expect(await s.destination()).toMatchObject({ pause: { by: 'me', reason: 'maintenance' } });
    expect(await resumeDestination(harness.pool, s.place)).toMatchObject({ by: 'me' });
    await settled(s);
    expect(s.store.dump()).toEqual(s.source.expected());
  });

  test('when it is paused, no further attempt at an open Window begins', async () => {
    const s = await scene();
    for (const from of [0, 10, 20]) {
      s.store.refuse = new TidemarkError('TM401', 'the destination is away');
      await s.source.commit(many(3, from));
      // The next attempt comes within 200 ms, and a worker hears of a pause within 500.
      await until('failing', () => errorCode(s) === 'TM401');
      await pauseDestination(harness.pool, s.place, { by: 'me', reason: 'maintenance' });
      // One that was under way ends by itself.
      await new Promise((resolve) => setTimeout(resolve, 50));
      s.store.refuse = null;
      await until('paused', () => s.delivery.snapshot().destinations[0]!.paused);
      expect(s.store.contents.windows).toHaveLength(from / 10);
      await resumeDestination(harness.pool, s.place);
      await settled(s);
    }
  });

  test('a destination that fails for longer than pause.after pauses itself; resume tries at once', async () => {
    const s = await scene({ pauseAfterMs: 1500 });
    s.store.refuse = new TidemarkError('TM401', 'the destination is away');
    await s.source.commit(many(3));
    const paused = await until('paused', async () => (await s.destination())?.pause);
    expect(paused).toMatchObject({ by: 'tidemark', reason: 'TM401: the destination is away' });
    const failure = (await s.destination()).units[0]!.failure!;
    expect(failure).toMatchObject({ code: 'TM401' });
    expect(failure.failures).toBeGreaterThan(2);
    expect(failure.since!.getTime()).toBeLessThan(Date.now() - 1400);
    s.store.refuse = null;
    const resumedAt = Date.now();
    await resumeDestination(harness.pool, s.place);
    await settled(s);
    expect(Date.now() - resumedAt).toBeLessThan(5000);
    const [delivered] = await readDeliveries(harness.pool, { ...s.place, limit: 1 });
    expect(delivered).toMatchObject({ state: 'delivered', failure: null, nextAttemptAt: null });
    expect(delivered!.attempts).toBeGreaterThan(2);
    expect(delivered!.durationMs).not.toBeNull();
  });

  test('Retry-After is kept', async () => {
    const s = await scene();
    s.store.refuse = new TidemarkError('TM401', 'slow down', { retryAfterMs: 60_000 });
    await s.source.commit(many(3));
    const failure = await until('failure', async () => (await s.destination())?.units[0]?.failure);
    expect(failure!.nextAttemptAt!.getTime() - Date.now()).toBeGreaterThan(50_000);
    s.store.refuse = null;
    // Nobody paused it; whoever asks to go on need not wait.
    expect(await resumeDestination(harness.pool, s.place)).toBeNull();
    await settled(s);
  });
});

describe('settings', () => {
  /** A destination that asks for a password. */
  function guarded(store: MemoryStore, accepted: Set<string>): SinkKind {
    const inner = memorySink(store);
    const refusal = (password: unknown) =>
      accepted.has(String(password)) ? null : new TidemarkError('TM402', 'the password is refused');
    return {
      ...inner,
      options: { password: { type: 'secret', description: 'Password.' } },
      async check(_, { password }) {
        const error = refusal(password);
        return error ? [{ level: 'error', what: error.message, remedy: error.remedy }] : [];
      },
      async open(context, options) {
        const sink = (await inner.open(context, options)) as MergeSink;
        return {
          ...sink,
          async mergeWindow(window) {
            const error = refusal(options.password);
            if (error) throw error;
            return sink.mergeWindow(window);
          },
        };
      },
    };
  }

  test('new credentials are tried, then used, without a restart; the old ones may be revoked', async () => {
    const source = harness.source();
    await source.open([notes]);
    cleanups.push(() => source.close());
    const store = new MemoryStore();
    const accepted = new Set(['one']);
    const config = harness.config(source, [{ options: { password: 'one' } }]);
    let now = config.destinations;
    const kind = guarded(store, accepted);
    const delivery = await deliver(config, kind, undefined, async () => now);
    cleanups.push(() => delivery.stop());
    const place = { sourceId: source.sourceId, destination: 'warehouse' };
    const versions = async () =>
      (await readDeliveries(harness.pool, { ...place, limit: 9 })).map(({ credentials }) => credentials);
    const commit = async (from: number) => {
      await source.commit(many(2, from));
      await until('delivered', () => marksAt(delivery, source.position));
    };
    await commit(0);
    // Refused ones change nothing, and are told of.
    now = [{ ...now[0]!, options: { password: 'wrong' } }];
    const problem = async () =>
      (await readDestinations(harness.pool, source.sourceId))[0]!.credentials.problem;
    await until('told', problem);
    await commit(10);
    expect(await versions()).toEqual([1, 1]);
    accepted.add('two');
    now = [{ ...now[0]!, options: { password: 'two' }, windowMaxRecords: 1 }];
    await until(
      'used',
      async () => (await readDestinations(harness.pool, source.sourceId))[0]!.credentials.version === 2,
    );
    accepted.delete('one');
    await commit(20);
    expect(await problem()).toBeNull();
    expect((await versions())[0]).toBe(2);
    // Revoked while in use, and the new ones are there already: no wait for the next look.
    accepted.add('three').delete('two');
    now = [{ ...now[0]!, options: { password: 'three' } }];
    await commit(30);
    expect((await versions())[0]).toBe(3);
    // In the instance file before the destination knows them: refused at first, used when the old ones are.
    now = [{ ...now[0]!, options: { password: 'four' } }];
    await until('told', problem);
    accepted.add('four').delete('three');
    await commit(40);
    expect((await versions())[0]).toBe(4);
    expect(store.dump()).toEqual(source.expected());
  });
});

describe('moves', () => {
  async function move(s: Scene, kind: 'skip' | 'replay'): Promise<MoveOutcome[]> {
    const request = { kind, target: null, unit: null, by: 'me', reason: 'test' };
    const ids = await requestMove(harness.pool, s.place, request);
    let outcomes: MoveOutcome[] = [];
    await until('moved', async () => {
      outcomes = await moveOutcomes(harness.pool, ids);
      return outcomes.every(({ done }) => done);
    });
    return outcomes;
  }

  test('skip: past what Kafka expired', async () => {
    const s = await scene();
    await s.source.commit(many(3));
    await settled(s);
    await s.restart(async () => {
      await s.source.commit(many(3, 10));
      await s.source.expire('notes');
    });
    await s.source.commit(many(3, 20));
    await until('TM307', () => errorCode(s) === 'TM307');
    await move(s, 'skip');
    await s.source.commit(many(3, 30));
    await settled(s);
    expect(s.store.dump()['app.notes']).toHaveLength(6);
  });

  test('skip: a Window that cannot be delivered is given up, and what comes later goes on', async () => {
    const s = await scene();
    await s.source.commit(many(3));
    await settled(s);
    s.store.refuse = new TidemarkError('TM405', 'never');
    await s.source.commit(many(3, 10));
    await until('failing', () => errorCode(s) === 'TM405');
    const skippedTo = s.source.position;
    const [outcome] = await move(s, 'skip');
    expect(outcome).toMatchObject({ unit: '*', to: skippedTo });
    s.store.refuse = null;
    await s.source.commit(many(3, 20));
    await settled(s);
    expect(s.store.dump()['app.notes']).toHaveLength(6);
    expect(s.store.contents.windows.map(({ sequence }) => sequence)).toEqual([1, 2]);
  });

  test('replay: a destination restored from a backup gets what it lacks', async () => {
    const s = await scene();
    await s.source.commit(many(3));
    await settled(s);
    const backup = structuredClone(s.store.contents);
    await s.source.commit(many(3, 10));
    await settled(s);
    await s.source.commit([{ table: 'notes', change: { op: 'd', row: ['1', null] } }]);
    await settled(s);
    s.store.commit(backup);
    await s.restart();
    await until('TM404', () => errorCode(s) === 'TM404');
    await move(s, 'replay');
    await settled(s);
    expect(s.store.dump()).toEqual(s.source.expected());
    await s.source.commit(many(2, 30));
    await settled(s);
    expect(s.store.dump()).toEqual(s.source.expected());
  });

  test('replay: an emptied destination begins at the origin', async () => {
    const s = await scene();
    await s.source.commit(many(3));
    await settled(s);
    s.store.commit({ held: {}, rows: {}, retired: {}, copies: {}, windows: [] });
    await s.restart();
    await until('TM404', () => errorCode(s) === 'TM404');
    await move(s, 'replay');
    await settled(s);
    expect(s.store.dump()).toEqual(s.source.expected());
  });

  test('replay: rows that came out of Quarantine after the backup was made come again', async () => {
    const s = await scene();
    s.store.refuseRow = (_, row) => row[1] === 'n1';
    await s.source.commit(many(3));
    await settled(s);
    const backup = structuredClone(s.store.contents);
    s.store.refuseRow = () => false;
    const ledger = new QuarantineLedger(harness.pool);
    const entries = (all: boolean) => ledger.list(s.place.sourceId, { destination: 'warehouse', all });
    const replayed = async () => {
      await ledger.ask(
        s.place.sourceId,
        (await entries(false)).map(({ id }) => id),
        'replaying',
      );
      await until('replayed', async () => (await entries(false)).length === 0);
    };
    await replayed();
    expect(s.store.dump()).toEqual(s.source.expected());
    s.store.commit(backup);
    await s.restart();
    // The Window of the replay ended where it began: the Position alone does not tell that it is gone.
    await until('TM404', () => errorCode(s) === 'TM404');
    await move(s, 'replay');
    expect(await entries(true)).toMatchObject([{ state: 'held' }]);
    await replayed();
    await s.source.commit(many(2, 30));
    await settled(s);
    expect(s.store.dump()).toEqual(s.source.expected());
  });
});

describe('subscriptions', () => {
  test('a Window that was decided with a table that is not subscribed any more goes on without it', async () => {
    const source = harness.source();
    await source.open([notes, shape('tags', ['id', 'title'])]);
    cleanups.push(() => source.close());
    const store = new MemoryStore();
    const config = harness.config(source, [{}]);
    let delivery = await deliver(config, memorySink(store));
    cleanups.push(() => delivery.stop());
    store.refuse = new TidemarkError('TM401', 'the destination is away');
    await source.commit([...many(3), { table: 'tags', change: { op: 'c', row: ['1', 'tag'] } }]);
    const failing = () => delivery.snapshot().destinations[0]!.units[0]?.lastError;
    await until('failing', failing);
    await delivery.stop();
    store.refuse = null;
    delivery = await deliver(harness.config(source, [{ tables: ['app.notes'] }]), memorySink(store));
    await until('delivered', () => marksAt(delivery, source.position), 20_000);
    expect(store.dump()).toEqual({ 'app.notes': source.expected()['app.notes'] });
    // It missed what was in that Window: nobody skips that in silence.
    await delivery.stop();
    delivery = await deliver(config, memorySink(store));
    await source.commit([{ table: 'tags', change: { op: 'c', row: ['2', 'tag'] } }]);
    await until('TM307', () => failing()?.code === 'TM307');
  });

  test('one tenant: rows are not looked for in one partition once their table has no tenant column', async () => {
    const source = harness.source();
    const withTenant = { ...notes, tenantColumn: 1 };
    await source.open([withTenant], 8);
    cleanups.push(() => source.close());
    const store = new MemoryStore();
    const delivery = await deliver(harness.config(source, [{ tenant: 'a' }]), memorySink(store));
    cleanups.push(() => delivery.stop());
    const row = (id: number): TableChange => ({
      table: 'notes',
      change: { op: 'c', row: [String(id), 'a'] },
    });
    await source.commit([row(1)]);
    await until('delivered', () => marksAt(delivery, source.position));
    const mark = source.position;
    await source.tables.get('notes')!.records.setShape(notes);
    // Each in a transaction of its own: some are in other partitions.
    for (let id = 2; id < 9; id++) await source.commit([row(id)]);
    const unit = () => delivery.snapshot().destinations[0]!.units[0]!;
    await until('TM413', () => unit().lastError?.code === 'TM413', 20_000);
    expect(unit().mark).toBe(mark);
  });
});
