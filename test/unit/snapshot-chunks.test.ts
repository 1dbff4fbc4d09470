/**
 * What becomes of a chunk when its high mark is met: a model of the stream against which a naive snapshot fails. Rows
 * that changed between the marks are not published, and no row stays without its TOASTed columns.
 */
import { describe, expect, test } from 'vitest';
import { formatPosition } from '../../src/connector/position.ts';
import { newSnapshot } from '../../src/publish/progress.ts';
import { Chunk, type ChunkOutcome } from '../../src/publish/snapshot/chunk.ts';
import { isComplete, TableSnapshots } from '../../src/publish/snapshot/table-snapshots.ts';
import type { TableEncoder } from '../../src/publish/table-encoder.ts';
import { parsePgSnapshot } from '../../src/replicate/snapshot/visibility.ts';

const topic = 'p.app.t';
const at = (lsn: number) => formatPosition({ epoch: 1, lsn: BigInt(lsn), ordinal: 0 });
const key = (name: string) => Buffer.from(name);
const mark = (kind: 'low' | 'high', chunk: string) =>
  Buffer.from(JSON.stringify({ sourceId: 's', chunk, kind }));

class World {
  readonly snapshots = new TableSnapshots('s');
  #chunks = 0;
  #xid = 100;

  constructor() {
    this.snapshots.track(topic, newSnapshot('one', { since: at(100), destination: null }));
    this.snapshots.watch.begin();
    this.snapshots.watch.suspect(parsePgSnapshot('100:100:'));
  }

  /** A transaction of the application. */
  commit(...changes: { key: string; partial?: boolean; moved?: boolean }[]): number {
    for (const { key: name, partial = false, moved = false } of changes)
      this.snapshots.rowChanged(topic, key(name), { partial, moved, cursor: () => [name] });
    this.snapshots.committed(this.#xid);
    return this.#xid++;
  }

  low(keys: string[][] | null = null): Chunk {
    const chunk = this.expect(keys ? null : this.snapshots.state(topic)!.cursor, keys);
    this.#mark('low', chunk);
    return chunk;
  }

  /** Its low mark is in the WAL, and the stream is not there yet. */
  expect(from: string[] | null, keys: string[][] | null = null): Chunk {
    const id = `chunk-${this.#chunks++}`;
    const chunk = new Chunk({ id, topic, into: topic, snapshotId: 'one', keys, from });
    this.snapshots.expect(chunk);
    return chunk;
  }

  meetLow(chunk: Chunk): void {
    this.#mark('low', chunk);
  }

  #mark(kind: 'low' | 'high', chunk: Chunk) {
    this.snapshots.message('tidemark.snapshot', mark(kind, chunk.id));
    return this.snapshots.committed(this.#xid++);
  }

  read(chunk: Chunk, { sees = this.#xid, running = [] as number[], last = false } = {}): void {
    chunk.snapshot = parsePgSnapshot(`${Math.min(sees, ...running)}:${sees}:${running.join(',')}`);
    chunk.content = {
      encoder: { topic, valueSchemaId: 7 } as TableEncoder,
      next: null,
      last,
    };
  }

  /** Streams the high mark and takes the rows. @returns the outcome and the rows published */
  async high(chunk: Chunk, rows: string[]): Promise<{ outcome: ChunkOutcome; published: string[] }> {
    const last = rows.at(-1);
    if (chunk.content) chunk.content.next = last === undefined ? chunk.from : [last];
    const due = this.#mark('high', chunk);
    const published = due ? rows.filter((name) => due.take(key(name), () => [name])) : [];
    due?.published(at(this.#xid), () => {});
    return { outcome: await chunk.settled, published };
  }
}

describe('a chunk', () => {
  test('loses the rows that changed between its marks, and only those', async () => {
    const world = new World();
    world.commit({ key: 'a' });
    const chunk = world.low();
    world.commit({ key: 'b' });
    world.read(chunk);
    world.commit({ key: 'c' }, { key: 'z' });
    const { published, outcome } = await world.high(chunk, ['a', 'b', 'c', 'd']);
    expect(published).toEqual(['a', 'd']);
    expect(outcome).toEqual({ kind: 'published', rows: 2, dropped: 2 });
    expect(world.snapshots.state(topic)).toMatchObject({ cursor: ['d'], read: false, rows: 2n, again: [] });
  });

  test('is read while the one before it is under way, and goes with it', async () => {
    for (const truncated of [false, true]) {
      const world = new World();
      const first = world.low();
      world.read(first);
      const second = world.expect(['b']);
      world.read(second, { sees: 1000, last: true });
      const third = world.expect(['d']);
      world.commit({ key: 'a' }, { key: 'c' });
      if (truncated) world.snapshots.truncated(topic);
      const outcome = (await world.high(first, ['a', 'b'])).outcome;
      world.meetLow(second);
      world.commit({ key: 'd' });
      const { published, outcome: next } = await world.high(second, ['c', 'd']);
      if (truncated) {
        expect([outcome.kind, next]).toEqual(['void', { kind: 'void', reason: 'detached' }]);
        expect(world.snapshots.state(topic)).toMatchObject({ cursor: null, rows: 0n });
        continue;
      }
      // What changed before its own low mark is in its rows.
      expect(published).toEqual(['c']);
      expect(world.snapshots.state(topic)).toMatchObject({ cursor: ['d'], read: true, rows: 2n });
      // There was nothing after the last one.
      world.meetLow(third);
      world.read(third);
      expect((await world.high(third, ['e'])).outcome).toEqual({ kind: 'void', reason: 'detached' });
    }
  });

  test('is read again where a transaction streamed before its low mark was not visible', async () => {
    const world = new World();
    const late = world.commit({ key: 'a' });
    const chunk = world.low();
    world.read(chunk, { running: [late] });
    expect((await world.high(chunk, ['a'])).outcome).toEqual({ kind: 'void', reason: 'unseen' });
    expect(world.snapshots.state(topic)).toMatchObject({ cursor: null });
  });

  test('is void after a truncate, without its low mark, and for a process that does not have it', async () => {
    const world = new World();
    const truncated = world.low();
    world.read(truncated);
    world.snapshots.truncated(topic);
    expect((await world.high(truncated, ['a'])).outcome).toEqual({ kind: 'void', reason: 'truncated' });

    const replayed = new World();
    replayed.snapshots.message('tidemark.snapshot', mark('low', 'of an earlier process'));
    replayed.snapshots.message('tidemark.snapshot', mark('high', 'of an earlier process'));
    expect(replayed.snapshots.committed(1)).toBeNull();

    const another = new World();
    const chunk = another.low();
    another.read(chunk);
    another.snapshots.message(
      'tidemark.snapshot',
      Buffer.from(JSON.stringify({ sourceId: 'other', chunk: chunk.id, kind: 'high' })),
    );
    another.snapshots.message('tidemark.snapshot', Buffer.from('no json'));
    expect(another.snapshots.committed(1)).toBeNull();
  });

  test('is read again where the stream met another shape since its low mark, not where it had an older one', () => {
    const shaped = (name: string) =>
      ({
        topic,
        shape: { schema: 'app', name, columns: [], keyColumns: [], tenantColumn: null },
      }) as unknown as TableEncoder;
    const reshaped = (before: string | null, between: string | null) => {
      const world = new World();
      if (before) world.snapshots.prepared(shaped(before));
      const chunk = world.low();
      world.read(chunk);
      chunk.content!.encoder = shaped('new');
      if (between) world.snapshots.prepared(shaped(between));
      world.snapshots.message('tidemark.snapshot', mark('high', chunk.id));
      return world.snapshots.committed(9999)!.reshaped;
    };
    expect(reshaped('old', null)).toBe(false);
    expect(reshaped('old', 'new')).toBe(false);
    expect(reshaped(null, 'newer')).toBe(true);
  });

  test('a row dropped because of an update without its TOASTed columns is read again', async () => {
    const world = new World();
    const chunk = world.low();
    world.read(chunk, { last: true });
    world.commit({ key: 'b', partial: true }, { key: 'c' });
    expect((await world.high(chunk, ['a', 'b', 'c'])).published).toEqual(['a']);
    const state = () => world.snapshots.state(topic)!;
    expect(state()).toMatchObject({ read: true, again: [['b']] });
    expect(isComplete(state())).toBe(false);
    // Again changed while it is read, then not.
    for (const [busy, published] of [
      [true, []],
      [false, ['b']],
    ] as const) {
      const again = world.low([['b']]);
      world.read(again, { last: true });
      if (busy) world.commit({ key: 'b', partial: true });
      expect((await world.high(again, ['b'])).published).toEqual(published);
    }
    expect(isComplete(state())).toBe(true);
  });

  test('a row that such an update moved to another key is read there, wherever the scan stands', async () => {
    const world = new World();
    world.commit({ key: 'y' }, { key: 'a', partial: true, moved: true });
    expect(world.snapshots.state(topic)).toMatchObject({ again: [['a']] });
    const whole = new World();
    whole.commit({ key: 'y' }, { key: 'a', moved: true });
    expect(whole.snapshots.state(topic)).toMatchObject({ again: [] });
  });

  test('with too many keys to be read again the scan starts over', async () => {
    const world = new World();
    const chunk = world.low();
    world.read(chunk);
    await world.high(chunk, ['a', 'b']);
    for (let i = 0; i < 300; i++) world.commit({ key: `k${i}`, partial: true, moved: true });
    const { cursor, again } = world.snapshots.state(topic)!;
    expect(cursor).toBeNull();
    expect(again.length).toBeLessThan(256);
  });

  test('of a whole table it says since when, and where it ended, also when the scan started over', async () => {
    const world = new World();
    const state = () => world.snapshots.state(topic)!;
    world.snapshots.describe(topic, 'one', 'key');
    const chunk = world.low();
    world.read(chunk);
    await world.high(chunk, ['a', 'b']);
    expect(state()).toMatchObject({ since: at(100), until: null, schemaId: 7, cursor: ['b'] });
    for (let i = 0; i < 300; i++) world.commit({ key: `k${i}`, partial: true, moved: true });
    expect(state()).toMatchObject({ since: at(100), until: null, cursor: null });
    const last = world.low();
    world.read(last, { last: true });
    await world.high(last, []);
    expect(state().until).toBeNull();
    const again = world.low(state().again);
    world.read(again, { last: true });
    await world.high(again, []);
    expect(state().until).not.toBeNull();
    expect(world.snapshots.moved).toBe(true);
  });

  test('of another key than the cursor is of, the scan starts over', async () => {
    const world = new World();
    world.snapshots.describe(topic, 'one', 'key');
    const chunk = world.low();
    world.read(chunk);
    await world.high(chunk, ['a']);
    world.snapshots.describe(topic, 'one', 'key');
    world.snapshots.describe(topic, 'of another snapshot', 'other');
    expect(world.snapshots.state(topic)).toMatchObject({ cursor: ['a'] });
    world.snapshots.describe(topic, 'one', 'other');
    expect(world.snapshots.state(topic)).toMatchObject({ cursor: null, key: 'other', since: at(100) });
  });

  test('is settled when nobody wants the snapshot any more', async () => {
    const world = new World();
    const chunk = world.low();
    world.snapshots.untrack(topic);
    expect(await chunk.settled).toEqual({ kind: 'void', reason: 'cancelled' });
    expect(world.snapshots.idle).toBe(true);
  });
});
