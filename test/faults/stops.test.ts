/**
 * Where going on would lose or repeat something, the reader stops, says the code and what to do, and writes nothing.
 * Where one table alone is in the way, that table alone stops.
 */
import kafkajs from 'kafkajs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { errorCatalogue } from '../../src/platform/errors.ts';
import { decodeProgress, encodeProgress, type Progress } from '../../src/publish/progress.ts';
import { topicNames } from '../../src/publish/record-format.ts';
import { FaultStack, type Pipeline } from '../fixtures/pipeline.ts';
import { readTopics } from '../fixtures/read-topics.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('stops');
});
afterAll(async () => {
  await faults?.stop();
});

describe('the reader never skips by itself', () => {
  test('it refuses to start where Changes would be lost, and says why and what to do', () =>
    faults.run('refusals', { destinations: [] }, async (pipeline) => {
      const kafka = new kafkajs.Kafka({ brokers: pipeline.brokers, logLevel: kafkajs.logLevel.NOTHING });
      const { reader, delivery } = await pipeline.begin();
      await delivery.kill();
      await pipeline.workload.once({ seed: 'stops', transactions: 50 });
      await pipeline.published();
      await reader.stop();
      const names = topicNames(pipeline.prefix);
      const { last, schemaId } = await lastProgress(kafka, names.progress);

      await append(kafka, names.progress, { ...last, systemIdentifier: '7000000000000000000' }, schemaId);
      await refuses(pipeline, 'TM205');
      await append(kafka, names.progress, { ...last, timeline: last.timeline + 1 }, schemaId);
      await refuses(pipeline, 'TM205');
      await append(kafka, names.progress, last, schemaId);

      await deleteTopic(kafka, names.table({ schema: 'app', name: 'findings' }));
      await refuses(pipeline, 'TM306');

      await pipeline.workload.once({ seed: 'stops', transactions: 10 });
      await pipeline.source.query('select pg_replication_slot_advance($1, pg_current_wal_lsn())', [
        pipeline.slot,
      ]);
      await refuses(pipeline, 'TM203');

      await pipeline.source.query('select pg_drop_replication_slot($1)', [pipeline.slot]);
      await refuses(pipeline, 'TM204');

      await deleteTopic(kafka, names.progress);
      await refuses(pipeline, 'TM306');
    }));

  test('of two readers only one publishes: the older one is fenced and stops', () =>
    faults.run('two-readers', {}, async (pipeline) => {
      const { reader: older, delivery } = await pipeline.begin();
      pipeline.workload.start({ seed: 'stops', ...pipeline.usualLoad });
      await pipeline.delivering();
      let newer = pipeline.replicate();
      // One that loses its connection before Kafka tells it that it is fenced takes the source back: then the new one
      // stops, and whoever wants it starts it again.
      for (
        let left = 3;
        (await Promise.race([older.exited, newer.exited.then(() => 'newer')])) === 'newer';
        left--
      ) {
        expect(left).toBeGreaterThan(0);
        expect(newer.output()).toContain(`TM302: `);
        newer = pipeline.replicate();
      }
      expect(await older.exited).toBe(3);
      expect(older.output()).toContain(`TM302: `);
      await pipeline.streaming(newer);
      await pipeline.workload.committed(50);
      await pipeline.conclude(newer, delivery);
      expect((await pipeline.status()).source.problem).toBeNull();
    }));
});

describe('a changed shape parks that table alone', () => {
  test('its raw changes are kept in order, everything else goes on, also after a restart', () =>
    faults.run('parked', {}, async (pipeline) => {
      const table = 'app.rule_runs';
      const { reader, delivery } = await pipeline.begin();
      pipeline.workload.start({ seed: 'stops', ...pipeline.usualLoad });
      await pipeline.delivering();
      // Every row gets another value, and none of them is in the stream.
      await pipeline.source.query(
        `alter table ${table} add column reviewed_by uuid default gen_random_uuid()`,
      );
      await reader.logged('that the table is parked', ({ code }) => code === 'TM231');
      await pipeline.workload.committed(50);

      await reader.kill();
      const again = pipeline.replicate();
      await pipeline.workload.committed(50);
      await pipeline.delivering();
      const { progress } = await pipeline.status();
      expect(progress?.parked).toMatchObject([{ table, code: 'TM231' }]);
      expect(progress?.parked[0]?.reason).toContain('column reviewed_by added');
      const { parkedChanges } = await pipeline.conclude(again, delivery, { parked: [table] });
      expect(parkedChanges).toBeGreaterThan(0);
    }));
});

/** Starts a reader and waits for its refusal: exit code, report and what status reads say the same. */
async function refuses(pipeline: Pipeline, code: keyof typeof errorCatalogue): Promise<void> {
  const reader = pipeline.replicate();
  expect(await reader.exitsWithin(120_000), `${reader.name} stops with ${code}`).toBe(3);
  const report = reader.output().split('\n').slice(-3).join('\n');
  expect(report).toMatch(new RegExp(`^${code}: .+\n {2}→ .+`));
  const { rows } = await pipeline.control.query('select error_code, remedy from tidemark.sources');
  expect(rows).toEqual([{ error_code: code, remedy: errorCatalogue[code].remedy }]);
}

async function lastProgress(
  kafka: kafkajs.Kafka,
  topic: string,
): Promise<{ last: Progress; schemaId: number }> {
  let value: Buffer | null = null;
  await readTopics(kafka, [topic], (_topic, _partition, record) => {
    if (decodeProgress(record.value!).kind !== 'fence') value = record.value;
  });
  return { last: decodeProgress(value!), schemaId: value!.readUInt32BE(1) };
}

async function append(
  kafka: kafkajs.Kafka,
  topic: string,
  progress: Progress,
  schemaId: number,
): Promise<void> {
  const producer = kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
  await producer.connect();
  await producer.send({
    topic,
    messages: [{ key: progress.sourceId, value: encodeProgress(progress, schemaId) }],
  });
  await producer.disconnect();
}

async function deleteTopic(kafka: kafkajs.Kafka, topic: string): Promise<void> {
  const admin = kafka.admin();
  await admin.connect();
  await admin.deleteTopics({ topics: [topic] });
  await admin.disconnect();
}
