/** Which Windows a snapshot of a whole table has to do with follows from Progress, however much of it was read before. */
import { describe, expect, test } from 'vitest';
import { formatPosition, type Position } from '../../src/connector/position.ts';
import type { RowEvent } from '../../src/connector/sink.ts';
import { SnapshotList } from '../../src/deliver/snapshot-list.ts';
import { withSweeps } from '../../src/deliver/sweeps.ts';
import { newSnapshot, type SnapshotState } from '../../src/publish/progress.ts';

const at = (lsn: number): Position => formatPosition({ epoch: 1, lsn: BigInt(lsn), ordinal: 0 });
const topic = 'p.app.t';

function progress(lsn: number, snapshots: Record<string, SnapshotState> = {}) {
  return { kind: 'batch' as const, position: at(lsn), snapshots };
}

const open = newSnapshot('one', { since: at(10), destination: null });
const ended = { ...open, read: true, until: at(30), schemaId: 7, rows: 4n };
const endedOf = { topic, id: 'one', since: at(10), until: at(30), schemaId: 7, rows: 4 };
const openOf = { topic, id: 'one', since: at(10) };

function listed(...records: ReturnType<typeof progress>[]): SnapshotList {
  const list = new SnapshotList();
  for (const record of records) list.push(record);
  return list;
}

describe('a snapshot', () => {
  const list = listed(
    progress(5, { [topic]: open }),
    progress(20, { [topic]: open }),
    progress(30, { [topic]: ended }),
  );
  const within = (from: number, to: number) => list.within(at(from), at(to), 'lake', [topic]);

  test('is open in Windows that end after its start, and ends in exactly one', () => {
    expect(within(0, 10)).toEqual({ open: [], ended: [] });
    expect(within(0, 11)).toEqual({ open: [openOf], ended: [] });
    expect(within(11, 29)).toEqual({ open: [openOf], ended: [] });
    expect(within(29, 30)).toEqual({ open: [], ended: [endedOf] });
    expect(within(0, 99)).toEqual({ open: [], ended: [endedOf] });
    expect(within(30, 40)).toEqual({ open: [], ended: [] });
  });

  test('that ended is known from any Progress that still names it, also inside a Transaction', () => {
    const late = listed(progress(45, { [topic]: ended }), progress(50));
    expect(late.within(at(20), at(45), 'lake', [topic]).ended).toEqual([endedOf]);
    expect(late.within(at(45), at(50), 'lake', [topic])).toEqual({ open: [], ended: [] });
  });

  test('that was given up ends nowhere, and is over where Progress names it no more', () => {
    const given = listed(progress(20, { [topic]: open }), progress(25));
    expect(given.within(at(5), at(24), 'lake', [topic]).open).toEqual([openOf]);
    expect(given.within(at(5), at(25), 'lake', [topic])).toEqual({ open: [], ended: [] });
  });

  test('concerns its own table, and its own destination where it has one', () => {
    expect(list.within(at(0), at(99), 'lake', ['p.app.other']).ended).toEqual([]);
    const own = listed(progress(30, { [topic]: { ...ended, destination: 'lake' } }));
    expect(own.within(at(0), at(99), 'lake', [topic]).ended).toHaveLength(1);
    expect(own.within(at(0), at(99), 'replica', [topic]).ended).toEqual([]);
  });

  test('of some rows only is none', () => {
    const some = listed(progress(30, { [topic]: { ...ended, since: null } }));
    expect(some.within(at(0), at(99), 'lake', [topic])).toEqual({ open: [], ended: [] });
  });

  test('is forgotten when it is over for everybody', () => {
    const list = listed(progress(30, { [topic]: ended }), progress(40));
    list.dropBefore(at(29));
    expect(list.within(at(0), at(99), 'lake', [topic]).ended).toHaveLength(1);
    list.dropBefore(at(30));
    expect(list.within(at(0), at(99), 'lake', [topic]).ended).toEqual([]);
  });
});

describe('the end of a snapshot among events', () => {
  const shape = { schema: 'app', name: 't', columns: [], keyColumns: [0], tenantColumn: null };
  const event = (lsn: number): RowEvent => ({
    op: 'c',
    position: at(lsn),
    commitTimeUs: 0n,
    key: [],
    values: [],
    previousKey: null,
    before: null,
  });
  const content = (from: number, to: number) => ({
    topic: 0,
    range: { from: at(from), to: at(to) },
    changes: 1,
    truncatedAt: null,
    schemaId: 7,
    borrows: false,
  });
  const sweeps = [{ topic, shape, id: 'one', since: at(10), position: at(30), rows: 4 }];

  async function order(batches: number[][], parts: [number, number][]): Promise<string[]> {
    const tables = parts.map(() => ({
      shape,
      async *events() {
        for (const batch of batches) yield batch.map(event);
      },
    }));
    const result = withSweeps(
      tables,
      parts.map(([from, to]) => content(from, to)),
      { topics: [topic], sweeps, commitTimeUs: 1n },
    );
    const seen: string[] = [];
    for (const [part, { events }] of result.entries())
      for await (const batch of events())
        for (const { op, position } of batch)
          seen.push(`${part}${op}${Number(BigInt(`0x${position.slice(9, 25)}`))}`);
    return seen;
  }

  test('stands behind those up to its Position', async () => {
    expect(
      await order(
        [
          [20, 30],
          [31, 40],
        ],
        [[0, 50]],
      ),
    ).toEqual(['0c20', '0c30', '0s30', '0c31', '0c40']);
    expect(await order([[20], [25]], [[0, 50]])).toEqual(['0c20', '0c25', '0s30']);
    expect(await order([[31], [32]], [[0, 50]])).toEqual(['0s30', '0c31', '0c32']);
  });

  test('stands in the part of its Position, or in one of its own', async () => {
    expect(
      await order(
        [[20]],
        [
          [0, 29],
          [29, 50],
        ],
      ),
    ).toEqual(['0c20', '1c20', '1s30']);
    expect(await order([], [])).toEqual(['0s30']);
  });
});
