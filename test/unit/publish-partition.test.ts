/** A key stays in its partition, and it is the one that Kafka's Java client chooses. */
import kafkajs from 'kafkajs';
import { describe, expect, it, vi } from 'vitest';
import { murmur2, partitionOf } from '../../src/platform/partition.ts';
import { ByteMemo } from '../../src/publish/byte-memo.ts';
import { cases, replayable } from '../fixtures/pgoutput/replay.ts';

/** From org.apache.kafka.common.utils.UtilsTest. */
const javaClient: [string, number][] = [
  ['21', -973932308],
  ['foobar', -790332482],
  ['a-little-bit-long-string', -985981536],
  ['a-little-bit-longer-string', -1486304829],
  ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
  ['abc', 479470107],
];

vi.setConfig({ testTimeout: 60_000 });

describe('partition', () => {
  it.each(javaClient)("murmur2 of %s is the Java client's", (text, hash) => {
    expect(murmur2(Buffer.from(text))).toBe(hash);
  });

  it('partitionOf is the default partitioner of kafkajs', () =>
    replayable((prng) => {
      const partitioner = kafkajs.Partitioners.DefaultPartitioner();
      for (let i = 0; i < cases(5000, 100_000); i++) {
        const key = prng.bytes(prng.integer(0, 40));
        const count = prng.pick([1, 2, 3, 12, 64, 1000]);
        const partitionMetadata = Array.from({ length: count }, (_, partitionId) => ({
          partitionId,
          leader: 0,
        }));
        const twin = partitioner({
          topic: 't',
          partitionMetadata: partitionMetadata as unknown as kafkajs.PartitionMetadata[],
          message: { key, value: null },
        });
        expect(partitionOf(key, count)).toBe(twin);
      }
    }));

  it('what was found for some bytes is given for no others', () =>
    replayable((prng) => {
      const memo = new ByteMemo();
      const found = new Map<string, number>();
      for (let i = 0; i < 20_000; i++) {
        const bytes = prng.bytes(prng.pick([0, 1, 2, 16]));
        const frame = Buffer.concat([prng.bytes(3), bytes, prng.bytes(3)]);
        const text = bytes.toString('latin1');
        const known = memo.get(frame, 3, 3 + bytes.length);
        if (known >= 0) expect(known).toBe(found.get(text));
        found.set(text, i);
        memo.set(frame, 3, 3 + bytes.length, i);
        expect(memo.get(frame, 3, 3 + bytes.length)).toBe(i);
      }
    }));
});
