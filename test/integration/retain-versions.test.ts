/** Retention with an older Postgres as the source: rows leave on proof, stay where they are, and one comes back. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FaultStack } from '../fixtures/pipeline.ts';
import {
  addPolicy,
  createNotes,
  notesLeft,
  retainOnce,
  retentionOptions,
  verified,
} from '../fixtures/retention.ts';
import { SourceServer } from '../fixtures/source-server.ts';

let faults: FaultStack;
let folder: string;
let source: SourceServer;

beforeAll(async () => {
  faults = await FaultStack.start('retain-versions');
  folder = join(faults.stack.directory, 'sources');
  rmSync(folder, { recursive: true, force: true });
  source = await SourceServer.create(join(folder, 'source-15'), {}, 15);
});
afterAll(async () => {
  await source?.stop('SIGQUIT');
  if (folder) rmSync(folder, { recursive: true, force: true });
  await faults?.stop();
});

test('Postgres 15: rows past their days leave the source, no destination loses one, and one is recalled', () =>
  faults.run('retain-15', { ...retentionOptions, source }, async (pipeline) => {
    const { rows } = await pipeline.source.query(
      `select current_setting('server_version_num')::int / 10000 as major`,
    );
    expect(rows).toEqual([{ major: 15 }]);
    await createNotes(pipeline);
    const reader = pipeline.replicate();
    const delivery = pipeline.deliver();
    await pipeline.streaming(reader);
    for (const destination of pipeline.destinations) await pipeline.verify(destination);
    await pipeline.source.query('insert into app.comments values (1, 1, 2002)');
    await addPolicy(pipeline, { batch_rows: '4' });
    expect((await retainOnce(pipeline)).tables).toMatchObject([{ evicted: 8, problem: null }]);
    expect(await notesLeft(pipeline)).toContain(2002);
    for (const destination of pipeline.destinations)
      expect(await verified(pipeline, destination)).toMatchObject({ status: 'equal', evicted: 8 });
    const back = await pipeline.command([
      'recall',
      'app.notes',
      '--key',
      '["4","5001"]',
      '--reason',
      'audit',
      '--json',
    ]);
    expect(JSON.parse(back.stdout)).toMatchObject({ ok: true, recalled: 1 });
    await pipeline.source.query('call tidemark_retention.feel(2, 0.001, null)');
    for (const destination of pipeline.destinations)
      expect(await verified(pipeline, destination)).toMatchObject({ status: 'equal', evicted: 7 });
    await Promise.all([reader.stop(), delivery.stop()]);
  }));
