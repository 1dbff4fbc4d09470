/**
 * Both producers write the same stream, with every compression, and carry rows of many megabytes: the checks of the
 * fault tests hold for each.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
// Registers zstd for the checker's own consumer too.
import '../../src/platform/kafka.ts';
import { FaultStack } from '../fixtures/pipeline.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('producers');
});
afterAll(async () => {
  await faults?.stop();
});

const load = { seed: 'producers', transactionsPerSecond: 100, hostileValues: true, mix: { truncateLog: 10 } };

test.each([
  ['kafkajs', 'zstd'],
  ['record-batches', 'gzip'],
] as const)('the %s producer with compression %s', (producer, compression) =>
  faults.run(
    `producer-${producer}-${compression}`,
    { destinations: ['replica'], config: { 'kafka.producer': producer, 'kafka.compression': compression } },
    async (pipeline) => {
      const { reader, delivery } = await pipeline.begin();
      pipeline.workload.start(load);
      await pipeline.workload.committed(150);
      await pipeline.workload.stop();
      const { transactions } = await pipeline.conclude(reader, delivery);
      // `conclude` compares with the source's own count; here: that there was a load. A commit of the application may
      // change no row, so there may be fewer Transactions than commits.
      expect(transactions).toBeGreaterThan(100);
    },
  ),
);

test.each(['record-batches', 'kafkajs'])(
  'a row of 20 MiB beside small ones, by the %s producer',
  (producer) =>
    faults.run(`big-row-${producer}`, { config: { 'kafka.producer': producer } }, async (pipeline) => {
      const { reader, delivery } = await pipeline.begin();
      await pipeline.source.query(`
      update app.findings set evidence = repeat(md5(id::text), 655360)
       where (organization_id, id) = (select organization_id, id from app.findings order by id limit 1)`);
      await pipeline.source.query(`update app.findings set status = status`);
      await pipeline.conclude(reader, delivery);
    }),
);

test('a row beyond row.max.bytes stops the reader, names the table and not the value, and is kept', () =>
  faults.run(
    'too-big',
    { destinations: ['replica'], config: { 'kafka.row.max.bytes': '1MiB' } },
    async (pipeline) => {
      const { reader, delivery } = await pipeline.begin();
      await pipeline.source.query(`
      update app.findings set evidence = repeat('planted-secret', 200000)
       where (organization_id, id) = (select organization_id, id from app.findings order by id limit 1)`);
      expect(await reader.exitsWithin(60_000)).toBe(3);
      const { source } = await pipeline.status();
      expect(source.problem).toMatchObject({ code: 'TM308' });
      expect(source.problem?.error).toContain('app.findings');
      expect(JSON.stringify(source)).not.toContain('planted-secret');
      await delivery.stop();
    },
  ));
