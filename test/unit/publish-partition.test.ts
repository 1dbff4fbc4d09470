/** A key stays in its partition, and it is the one that Kafka's Java client chooses. */
import kafkajs from 'kafkajs';
import { describe, expect, it, vi } from 'vitest';
import { murmur2, partitionOf, TenantPartitions } from '../../src/publish/partition.ts';
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

  it('a tenant stays where it is when the memory of tenants is emptied', () => {
    const tenants = new TenantPartitions(7);
    const first = Array.from({ length: 25_000 }, (_, i) => tenants.of(`tenant-${i}`));
    expect(first.map((_, i) => tenants.of(`tenant-${i}`))).toEqual(first);
    expect(tenants.of('ä 🌊')).toBe(partitionOf(Buffer.from('ä 🌊'), 7));
  });
});
