/** Progress is the reader's checkpoint: it comes back exactly, and what is not a known Progress is TM206. */
import { describe, expect, it, vi } from 'vitest';
import { formatPosition, type Position } from '../../src/connector/position.ts';
import { TidemarkError } from '../../src/platform/errors.ts';
import { decodeProgress, encodeProgress, type Progress } from '../../src/publish/progress.ts';
import { Prng } from '../../src/sample/prng.ts';
import { cases, replayable } from '../fixtures/pgoutput/replay.ts';

const long = (prng: Prng) =>
  prng.pick([0n, 2n ** 53n + 1n, 2n ** 63n - 1n, BigInt.asUintN(63, prng.bytes(8).readBigUInt64BE())]);

function anyPosition(prng: Prng): Position {
  return formatPosition({
    epoch: prng.uint32(),
    lsn: prng.bytes(8).readBigUInt64BE(),
    ordinal: prng.uint32(),
  });
}

function anyProgress(prng: Prng): Progress {
  const names = ['t.public.a', 't.ä.🌊', '__proto__', 'constructor', ''];
  return {
    kind: prng.pick(['origin', 'batch', 'heartbeat', 'fence'] as const),
    sourceId: prng.uuid(),
    position: anyPosition(prng),
    boundary: prng.chance(0.5),
    ackLsn: long(prng),
    commitTimeUs: long(prng),
    writtenAtUs: long(prng),
    systemIdentifier: String(long(prng)),
    timeline: prng.integer(1, 2 ** 31 - 1),
    writer: prng.uuid(),
    endOffsets: Object.fromEntries(
      prng
        .some(['t.public.a', 't.ä.🌊', 'constructor'], 3)
        .map((topic) => [topic, Array.from({ length: prng.integer(0, 40) }, () => long(prng))]),
    ),
    parked: Object.fromEntries(
      prng
        .some(
          names.filter((name) => name !== '__proto__'),
          2,
        )
        .map((table) => [
          table,
          {
            position: anyPosition(prng),
            code: 'TM208',
            reason: `"${table}"`,
            moves: table.length % 3 === 0 ? null : table.length % 3 === 1 ? [] : [table],
          },
        ]),
    ),
    snapshots: Object.fromEntries(
      prng.some(['t.public.a', 'constructor'], 2).map((topic) => [
        topic,
        {
          id: prng.uuid(),
          cursor: prng.chance(0.3) ? null : [prng.uuid(), "'"],
          read: prng.chance(0.5),
          rows: long(prng),
          again: prng.chance(0.5) ? [] : [[prng.uuid(), '']],
          key: prng.chance(0.3) ? null : prng.uuid(),
          since: prng.chance(0.3) ? null : anyPosition(prng),
          until: prng.chance(0.5) ? null : anyPosition(prng),
          schemaId: prng.chance(0.5) ? null : prng.integer(1, 1000),
          destination: prng.chance(0.5) ? null : 'lake',
        },
      ]),
    ),
  };
}

function refusal(bytes: Buffer): TidemarkError | null {
  try {
    decodeProgress(bytes);
    return null;
  } catch (error) {
    expect(error).toBeInstanceOf(TidemarkError);
    return error as TidemarkError;
  }
}

vi.setConfig({ testTimeout: 60_000 });

describe('Progress', () => {
  it('comes back exactly, offsets and LSNs past 2^53 included', () =>
    replayable((prng) => {
      for (let i = 0; i < cases(500, 10_000); i++) {
        const progress = anyProgress(prng);
        const schemaId = prng.uint32();
        const bytes = encodeProgress(progress, schemaId);
        expect(bytes[0]).toBe(0);
        expect(bytes.readUInt32BE(1)).toBe(schemaId);
        const back = decodeProgress(bytes);
        for (const table of Object.keys(back.parked)) back.parked[table] = { ...back.parked[table]! };
        expect({ ...back }).toEqual(progress);
      }
    }));

  it('another format is refused by its number, whatever follows it', () =>
    replayable((prng) => {
      const bytes = encodeProgress(anyProgress(prng), 1);
      for (const format of [0, 4, 7]) {
        const other = Buffer.from(bytes.subarray(0, prng.chance(0.5) ? 8 : bytes.length));
        other[5] = format * 2;
        expect(refusal(other)).toMatchObject({
          code: 'TM206',
          message: expect.stringContaining(`format ${format}`),
        });
      }
    }));

  it('format 1, which had no snapshots, is still read', () => {
    const progress = anyProgress(new Prng('format 1'));
    const bytes = encodeProgress({ ...progress, snapshots: {} }, 1);
    // The last field of the formats after it is an empty map: one byte.
    const old = Buffer.from(bytes.subarray(0, bytes.length - 1));
    old[5] = 2;
    const back = decodeProgress(old);
    for (const table of Object.keys(back.parked)) back.parked[table] = { ...back.parked[table]! };
    expect({ ...back }).toEqual({ ...progress, snapshots: {} });
  });

  it('format 2, whose snapshots said less, is still read', () => {
    const progress = anyProgress(new Prng('format 2'));
    const later = { key: null, since: null, until: null, schemaId: null, destination: null };
    const state = { id: 'one', cursor: ['7'], read: false, rows: 5n, again: [], ...later };
    const bytes = encodeProgress({ ...progress, snapshots: { 't.public.a': state } }, 1);
    // What came since are five nulls of one byte each, before the byte that ends the map.
    const old = Buffer.concat([bytes.subarray(0, bytes.length - 6), bytes.subarray(bytes.length - 1)]);
    old[5] = 4;
    expect(decodeProgress(old).snapshots).toEqual({ 't.public.a': state });
  });

  it('cut short, lengthened, or without the wire format: TM206', () =>
    replayable((prng) => {
      const bytes = encodeProgress(anyProgress(prng), 1);
      for (let length = 0; length < bytes.length; length++)
        expect(refusal(bytes.subarray(0, length))?.code, `cut at ${length}`).toBe('TM206');
      expect(refusal(Buffer.concat([bytes, Buffer.from([0])]))?.code).toBe('TM206');
      expect(refusal(Buffer.concat([Buffer.from([1]), bytes.subarray(1)]))?.code).toBe('TM206');
    }));

  it('a Position of another form is refused', () =>
    replayable((prng) => {
      const progress = { ...anyProgress(prng), position: 'somewhere' as Position };
      expect(refusal(encodeProgress(progress, 1))?.code).toBe('TM206');
    }));
});
