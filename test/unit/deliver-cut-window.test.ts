import { describe, expect, test } from 'vitest';
import { formatPosition, type Position } from '../../src/connector/position.ts';
import type { Sink } from '../../src/connector/sink.ts';
import { type Boundary, BoundaryList } from '../../src/deliver/boundary-list.ts';
import {
  type Cut,
  type CutSettings,
  cutWindow,
  type HoldState,
  type Mark,
} from '../../src/deliver/cut-window.ts';
import type { OwnedUnit } from '../../src/deliver/ledger.ts';
import { moveUnit } from '../../src/deliver/move-unit.ts';
import type { Moves } from '../../src/deliver/moves.ts';
import { lostToRetention, recordsBetween } from '../../src/deliver/offsets.ts';
import type { Progress } from '../../src/publish/progress.ts';
import { type Random, random } from './deliver-random.ts';

const at = (lsn: number, ordinal = 0, epoch = 1): Position =>
  formatPosition({ epoch, lsn: BigInt(lsn), ordinal });

interface History {
  boundaries: Boundary[];
  topics: string[];
}

/** Boundaries with growing Position, time and offsets; a topic may appear late, and some add nothing. */
function history(r: Random, count: number): History {
  const topics = ['p.app.a', 'p.app.b', 'p.app.c'];
  const ends: Record<string, number[]> = { 'p.app.a': [0, 0] };
  let time = 1_000_000n;
  let lsn = 100;
  const boundaries: Boundary[] = [];
  for (let i = 0; i < count; i++) {
    if (i > 0) {
      lsn += 1 + r.integer(5);
      time += BigInt(r.integer(4_000)) * 1000n;
      for (const topic of topics) {
        if (r.next() < 0.4) continue;
        ends[topic] ??= [0, 0];
        ends[topic] = ends[topic].map((end) => end + (r.next() < 0.5 ? 0 : r.integer(20)));
      }
    }
    boundaries.push({
      position: at(lsn, i % 2),
      commitTimeUs: time,
      origin: i === 0,
      endOffsets: { ...ends },
    });
  }
  return { boundaries, topics };
}

/** The rule, read aloud: boundary by boundary. */
function slowCut(
  mark: Mark,
  { boundaries }: History,
  settings: CutSettings,
): { to: Position; records: number } | null {
  const newest = boundaries.at(-1)!;
  const cadenceIsOver = newest.commitTimeUs - mark.commitTimeUs >= BigInt(settings.cadenceMs) * 1000n;
  let before: { to: Position; records: number } | null = null;
  for (const boundary of boundaries) {
    if (boundary.position <= mark.position) continue;
    const records = recordsBetween(mark.offsets, boundary.endOffsets, settings.topics);
    if (records > settings.fittingRecords) return before ?? { to: boundary.position, records };
    const last = boundary === newest && (settings.cadenceMs === 0 || cadenceIsOver);
    if (last || records >= settings.maxRecords) return { to: boundary.position, records };
    if (records > 0) before = { to: boundary.position, records };
  }
  return null;
}

const moved = (cut: Cut): Mark => ({
  position: cut.to,
  commitTimeUs: cut.commitTimeUs,
  offsets: cut.markOffsets,
});

describe('cutWindow', () => {
  test('windows follow the rule, without gap or overlap, on random histories', () => {
    const r = random();
    for (let run = 0; run < 400; run++) {
      const past = history(r, 2 + r.integer(60));
      const settings: CutSettings = {
        topics: past.topics.slice(0, 1 + r.integer(3)),
        cadenceMs: r.pick([0, 1000, 5000, 30_000]),
        maxRecords: r.pick([1, 10, 100, 1000]),
        fittingRecords: r.pick([5, 50, Number.POSITIVE_INFINITY]),
      };
      const first = past.boundaries[0]!;
      let mark: Mark = { position: first.position, commitTimeUs: first.commitTimeUs, offsets: {} };
      for (;;) {
        // The newest boundaries become known only bit by bit.
        const known = {
          ...past,
          boundaries: past.boundaries.slice(0, 1 + r.integer(past.boundaries.length)),
        };
        const cut = cutWindow(mark, known.boundaries, settings, null);
        const slow = slowCut(mark, known, settings);
        const context = `seed ${r.seed}, run ${run}`;
        if (!cut) {
          // Idle continuous Units move in steps of a second.
          if (slow) expect(slow.records, context).toBe(0);
          if (known.boundaries.length === past.boundaries.length) break;
          continue;
        }
        expect(slow, context).not.toBeNull();
        if (slow!.records > 0) expect(cut.to, context).toBe(slow!.to);
        else expect(cut.records, context).toBe(0);
        expect(cut.from, context).toBe(mark.position);
        expect(cut.to > mark.position, context).toBe(true);
        expect(
          known.boundaries.some(({ position }) => position === cut.to),
          context,
        ).toBe(true);
        expect(cut.ingestOffsets, context).toEqual(cut.markOffsets);
        mark = moved(cut);
      }
    }
  });

  test('with a target the last window ends exactly there, at a common Position for any cadence', () => {
    const r = random();
    for (let run = 0; run < 400; run++) {
      const past = history(r, 5 + r.integer(40));
      const settings: CutSettings = {
        topics: past.topics,
        cadenceMs: r.pick([0, 5000, 3_600_000]),
        maxRecords: r.pick([1, 20, 1000]),
        fittingRecords: Number.POSITIVE_INFINITY,
      };
      const target = at(101 + r.integer(200));
      const hold: HoldState = { target };
      const first = past.boundaries[0]!;
      let mark: Mark = { position: first.position, commitTimeUs: first.commitTimeUs, offsets: {} };
      const context = `seed ${r.seed}, run ${run}`;
      for (let steps = 0; ; steps++) {
        expect(steps < 1000, context).toBe(true);
        const cut = cutWindow(mark, past.boundaries, settings, hold);
        if (!cut) break;
        expect(cut.to <= target, context).toBe(true);
        for (const [topic, ends] of Object.entries(cut.markOffsets))
          ends.forEach((end, i) => {
            expect(end <= cut.ingestOffsets[topic]![i]!, context).toBe(true);
          });
        // What the next Window starts from lies at or before the mark: nothing can be stepped over.
        const covering = past.boundaries.filter(({ position }) => position <= cut.to).at(-1)!;
        for (const [topic, ends] of Object.entries(cut.markOffsets))
          ends.forEach((end, i) => {
            expect(end <= (covering.endOffsets[topic]?.[i] ?? 0), context).toBe(true);
          });
        mark = moved(cut);
      }
      const reachable = past.boundaries.at(-1)!.position >= target;
      if (reachable && first.position < target) expect(mark.position, context).toBe(target);
      else if (first.position < target)
        expect(mark.position <= past.boundaries.at(-1)!.position, context).toBe(true);
    }
  });

  test('a hold without a target stops', () => {
    const r = random();
    const past = history(r, 20);
    const { position, commitTimeUs } = past.boundaries[0]!;
    const settings = {
      topics: past.topics,
      cadenceMs: 0,
      maxRecords: 10,
      fittingRecords: Number.POSITIVE_INFINITY,
    };
    expect(
      cutWindow({ position, commitTimeUs, offsets: {} }, past.boundaries, settings, { target: null }),
    ).toBeNull();
  });

  test('no window crosses into a new epoch', () => {
    const boundary = (position: Position, end: number): Boundary => ({
      position,
      commitTimeUs: 5n,
      origin: false,
      endOffsets: { t: [end] },
    });
    const settings = {
      topics: ['t'],
      cadenceMs: 0,
      maxRecords: 100,
      fittingRecords: Number.POSITIVE_INFINITY,
    };
    const mark = { position: at(10), commitTimeUs: 0n, offsets: { t: [0] } };
    const next = [boundary(at(10), 0), boundary(at(11, 1), 1), boundary(at(5, 0, 2), 3)];
    const cut = cutWindow(mark, next, settings, null);
    expect(cut?.to).toBe(at(11, 1));
    expect(() => cutWindow(moved(cut!), next, settings, null)).toThrowError(/epoch 2/);
  });

  test('a Window crosses into the epoch of a promoted standby, which goes on with the old one', () => {
    const list = new BoundaryList();
    const push = (kind: Progress['kind'], position: Position, boundary = true) =>
      list.push({
        kind,
        position,
        boundary,
        commitTimeUs: 5n,
        endOffsets: { t: [BigInt(list.list.length)] },
      } as unknown as Progress);
    const settings = {
      topics: ['t'],
      cadenceMs: 0,
      maxRecords: 100,
      fittingRecords: Number.POSITIVE_INFINITY,
    };
    const mark = { position: at(10), commitTimeUs: 0n, offsets: { t: [0] } };
    push('origin', at(10));
    push('batch', at(11, 1));
    push('batch', at(12, 3, 2), false);
    push('batch', at(12, 5, 2));
    push('heartbeat', at(13, 0, 3));
    expect(cutWindow(mark, list.list, settings, null)?.to).toBe(at(13, 0, 3));
    push('origin', at(4, 0, 4));
    push('batch', at(5, 1, 4));
    const cut = cutWindow(mark, list.list, settings, null);
    expect(cut?.to).toBe(at(13, 0, 3));
    expect(() => cutWindow(moved(cut!), list.list, settings, null)).toThrowError(/epoch 4/);
    // Whoever did not read where an epoch began cannot know that it goes on.
    list.clear();
    push('batch', at(12, 5, 2));
    expect(() => cutWindow(mark, list.list, settings, null)).toThrowError(/epoch 2/);
  });

  test('a quiet source is passed in one step, and a backlog in one Window', () => {
    const boundariesTo = (records: number) =>
      Array.from(
        { length: 1000 },
        (_, i): Boundary => ({
          position: at(10 + i),
          commitTimeUs: BigInt(i) * 60_000_000n,
          origin: false,
          endOffsets: { t: [i > 900 ? records : 0] },
        }),
      );
    const mark = { position: at(10), commitTimeUs: 0n, offsets: { t: [0] } };
    const settings = {
      topics: ['t'],
      cadenceMs: 60_000,
      maxRecords: 10,
      fittingRecords: Number.POSITIVE_INFINITY,
    };
    expect(cutWindow(mark, boundariesTo(0), settings, null)).toMatchObject({ to: at(1009), records: 0 });
    expect(cutWindow(mark, boundariesTo(5), settings, null)).toMatchObject({ to: at(1009), records: 5 });
    // One that reached the size ends there.
    expect(cutWindow(mark, boundariesTo(50), settings, null)).toMatchObject({ to: at(911), records: 50 });
  });
});

describe('BoundaryList', () => {
  const progress = (
    lsn: number,
    end: bigint,
    kind: Progress['kind'] = 'batch',
    boundary = true,
  ): Progress => ({
    kind,
    boundary,
    sourceId: 's',
    position: at(lsn),
    ackLsn: 0n,
    commitTimeUs: BigInt(lsn),
    writtenAtUs: 0n,
    systemIdentifier: '',
    timeline: 1,
    writer: '',
    endOffsets: { t: [end], u: [0n] },
    parked: {},
    snapshots: {},
  });

  test('memory is bounded by thinning, which keeps the ends and drops what stands for the fewest records', () => {
    const list = new BoundaryList(64);
    let end = 0n;
    for (let i = 1; i <= 10_000; i++) {
      // One boundary in a hundred stands for many records.
      end += i % 100 === 0 ? 1000n : 0n;
      list.push(progress(i, end));
    }
    expect(list.list.length).toBeLessThanOrEqual(64);
    expect(list.list[0]!.position).toBe(at(1));
    expect(list.newest!.position).toBe(at(10_000));
    const positions = list.list.map(({ position }) => position);
    expect([...positions].sort()).toEqual(positions);
  });

  test('fences and inner Progress are no boundaries, an equal Position moves only the time', () => {
    const list = new BoundaryList();
    list.push(progress(1, 0n, 'origin'));
    list.push(progress(2, 1n, 'batch', false));
    list.push(progress(3, 1n, 'fence'));
    list.push(progress(4, 2n));
    list.push({ ...progress(4, 2n, 'heartbeat'), commitTimeUs: 99n });
    expect(list.list.map(({ position }) => position)).toEqual([at(1), at(4)]);
    expect(list.newest!.commitTimeUs).toBe(99n);
    expect(list.latestOrigin!.position).toBe(at(1));
    list.dropBefore(at(3));
    expect(list.list.length).toBe(2);
    list.dropBefore(at(4));
    expect(list.list.length).toBe(1);
    expect(list.latestOrigin!.position).toBe(at(1));
  });
});

test('lostToRetention: markers are no loss, records are', () => {
  expect(lostToRetention(10, 10, 20)).toBe(false);
  expect(lostToRetention(10, 11, 20)).toBe(false);
  expect(lostToRetention(10, 12, 20)).toBe(true);
  expect(lostToRetention(10, 50, 10)).toBe(false);
  expect(lostToRetention(0, 1, 20)).toBe(true);
});

test('a skip waits until Progress was read to its end, and back to where the Unit is', async () => {
  const boundaries = [5, 7, 9].map(
    (lsn): Boundary => ({
      position: at(lsn),
      commitTimeUs: 0n,
      origin: false,
      endOffsets: {},
    }),
  );
  const unit = { mark: { position: at(4), commitTimeUs: 0n, offsets: {} }, open: null } as OwnedUnit;
  const skipTo = async (target: Position | null, read: { caughtUp: boolean; back: boolean }) => {
    const { caughtUp, back } = read;
    const moved = await moveUnit(
      unit,
      { id: 1, kind: 'skip', target },
      {
        moves: {
          skip: async (_: unknown, __: unknown, to: Mark) => ({ ...unit, mark: to }),
        } as unknown as Moves,
        sink: { mode: 'send' } as Sink,
        progress: { boundaries, caughtUp, reachesBack: () => back },
        topicsIn: () => [],
      },
    );
    return moved?.mark?.position ?? null;
  };
  expect(await skipTo(null, { caughtUp: false, back: true })).toBeNull();
  expect(await skipTo(at(6), { caughtUp: true, back: false })).toBeNull();
  expect(await skipTo(null, { caughtUp: true, back: true })).toBe(at(9));
  expect(await skipTo(at(6), { caughtUp: true, back: true })).toBe(at(7));
});
