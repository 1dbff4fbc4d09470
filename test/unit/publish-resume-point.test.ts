/** Where the reader goes on after its server changed: invariant 1, and Positions that only grow. */
import { describe, expect, it } from 'vitest';
import { formatPosition, parsePosition } from '../../src/connector/position.ts';
import type { Progress } from '../../src/publish/progress.ts';
import { decideResume, type ResumeFacts } from '../../src/publish/resume-point.ts';
import { walLevel } from '../../src/publish/wal-budget.ts';
import type { SlotState, SourceIdentity } from '../../src/replicate/source.ts';

const slot: SlotState = {
  name: 's',
  active: false,
  activePid: null,
  confirmedLsn: 900n,
  restartLsn: 800n,
  retainedBytes: 0n,
  walStatus: 'reserved',
  plugin: 'pgoutput',
  invalidation: null,
  failover: true,
  synced: false,
};

const progressAt = (lsn: bigint, ordinal: number, ackLsn: bigint, boundary = true): Progress => ({
  kind: 'batch',
  sourceId: 'app',
  position: formatPosition({ epoch: 4, lsn, ordinal }),
  boundary,
  ackLsn,
  commitTimeUs: 1n,
  writtenAtUs: 1n,
  systemIdentifier: '7',
  timeline: 2,
  writer: 'w',
  endOffsets: { t: [5n] },
  parked: {},
  snapshots: {},
});

const on = (timeline: number, forks: [number, bigint][] = []): SourceIdentity => ({
  systemIdentifier: '7',
  timeline,
  database: 'd',
  version: 180000,
  ancestors: forks.map(([ancestor, endLsn]) => ({ timeline: ancestor, endLsn })),
});

const facts = (
  progress: Progress,
  identity: SourceIdentity,
  found: SlotState | null = slot,
  walLsn = 10_000n,
): ResumeFacts => ({
  sourceId: 'app',
  identity,
  slot: found,
  row: { systemIdentifier: '7', timeline: 2, slot: 's', epoch: 4, state: 'streaming', madeSlot: true },
  progress,
  walLsn,
});

describe('a promoted standby', () => {
  it.each<[string, Progress, bigint]>([
    ['that has everything', progressAt(1000n, 3, 1040n), 1040n],
    ['that has more', progressAt(1000n, 3, 1040n), 5000n],
    ['after an idle time', progressAt(1040n, 0, 1040n), 1040n],
    ['inside a Transaction that it has', progressAt(1200n, 3, 1040n, false), 1240n],
  ])('%s goes on in the next epoch, at the same place', (_what, progress, fork) => {
    for (const identity of [
      on(3, [
        [1, 50n],
        [2, fork],
      ]),
      on(4, [
        [1, 50n],
        [2, fork],
        [3, 9000n],
      ]),
    ]) {
      const point = decideResume(facts(progress, identity));
      if (point.kind !== 'failover') throw new Error(point.kind);
      expect(parsePosition(point.progress.position)).toEqual({
        ...parsePosition(progress.position),
        epoch: 5,
      });
      expect(point.progress.position > progress.position).toBe(true);
      expect(point.progress).toMatchObject({
        timeline: identity.timeline,
        ackLsn: progress.ackLsn,
        boundary: progress.boundary,
        endOffsets: progress.endOffsets,
      });
      expect(point.progress.kind).not.toBe('origin');
    }
  });

  it.each<[string, Progress, bigint]>([
    ['a transaction', progressAt(1000n, 3, 1040n), 1000n],
    ['the Transaction that was cut', progressAt(1200n, 3, 1040n, false), 1200n],
    ['what idle Progress covered', progressAt(1040n, 0, 1040n), 1039n],
  ])('without %s stops: TM241', (_what, progress, fork) => {
    expect(() => decideResume(facts(progress, on(3, [[2, fork]])))).toThrow(
      expect.objectContaining({ code: 'TM241' }),
    );
  });

  it('of another branch stops: TM205; and without the slot, or with one that went on: TM204, TM203', () => {
    const progress = progressAt(1000n, 3, 1040n);
    const code = (identity: SourceIdentity, found: SlotState | null = slot) => {
      try {
        return decideResume(facts(progress, identity, found)).kind;
      } catch (error) {
        return (error as { code: string }).code;
      }
    };
    expect(code(on(3, [[1, 5000n]]))).toBe('TM205');
    expect(code(on(1))).toBe('TM205');
    expect(code(on(3, [[2, 5000n]]), null)).toBe('TM204');
    expect(code(on(3, [[2, 5000n]]), { ...slot, walStatus: 'lost' })).toBe('TM204');
    expect(code(on(3, [[2, 5000n]]), { ...slot, confirmedLsn: 1041n })).toBe('TM203');
  });
});

it('a server with less WAL than was published stops: TM242', () => {
  const progress = progressAt(1000n, 3, 1040n);
  expect(() => decideResume(facts(progress, on(2, [[1, 50n]]), slot, 1039n))).toThrow(
    expect.objectContaining({ code: 'TM242' }),
  );
  expect(decideResume(facts(progress, on(2, [[1, 50n]]), slot, 1040n)).kind).toBe('resume');
});

it('a WAL budget warns from four fifths on', () => {
  expect([0n, 79n, 80n, 100n, 101n].map((used) => walLevel(used, 100))).toEqual([
    'within',
    'within',
    'near',
    'near',
    'beyond',
  ]);
});
