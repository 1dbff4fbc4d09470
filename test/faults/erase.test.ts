/** Erasure: rows are gone from the source and from every destination that can delete; what is left somewhere is told. */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ErasureReport } from '../../src/retain/erase/erase.ts';
import { FaultStack, type Pipeline } from '../fixtures/pipeline.ts';
import {
  addPolicy,
  createNotes,
  notesLeft,
  retainOnce,
  retentionOptions,
  retiredRows,
  tombstones,
  verified,
} from '../fixtures/retention.ts';
import { TidemarkProcess } from '../fixtures/tidemark-process.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('erase');
});
afterAll(async () => {
  await faults?.stop();
});

type Answer = ErasureReport & { ok: boolean; code: number; error?: { code: string } };

async function erase(pipeline: Pipeline, ...args: string[]): Promise<Answer> {
  const { code, stdout, stderr } = await pipeline.command(['erase', ...args, '--json']);
  expect(stdout, stderr).not.toBe('');
  return { ...JSON.parse(stdout), code } as Answer;
}

const why = ['--reason', 'art. 17', '--by', 'Ada'];
const ofTenant = (tenant: string) => ['--tenant', tenant, '--confirm', tenant, ...why];

async function evicted(pipeline: Pipeline) {
  await createNotes(pipeline);
  const reader = pipeline.replicate();
  const delivery = pipeline.deliver();
  await pipeline.streaming(reader);
  for (const destination of pipeline.destinations) await pipeline.verify(destination);
  await addPolicy(pipeline);
  expect(await retainOnce(pipeline)).toMatchObject({ ok: true, tables: [{ evicted: 9 }] });
  return { reader, delivery };
}

test('a tenant’s rows go everywhere, evicted ones too; a legal hold wins, and what stays somewhere is told', () =>
  faults.run('erase', retentionOptions, async (pipeline) => {
    const { source, replica } = pipeline;
    const { reader, delivery } = await evicted(pipeline);
    await source.query(`insert into app.comments values (1, 1, 1011), (4, 1, 4011)`);

    // Nothing is erased by a typing error, or under a hold.
    expect(await erase(pipeline, '--tenant', '1', '--confirm', '11', ...why)).toMatchObject({ code: 2 });
    await source.query(`insert into tidemark_retention.legal_holds (table_schema, table_name, row_keys, reason)
      values ('app', 'notes', array['["1","2001"]'], 'case 12')`);
    expect(await erase(pipeline, ...ofTenant('1'))).toMatchObject({ code: 3, error: { code: 'TM511' } });
    expect((await tombstones(pipeline)).every(({ erased_at }) => erased_at === null)).toBe(true);
    expect(await notesLeft(pipeline)).toHaveLength(27);
    await source.query(
      `update tidemark_retention.legal_holds set released_at = now(), released_by = '', release_reason = 'over'`,
    );

    // The reader begins anew: nothing of the table is streamed before its evicted rows are erased.
    await reader.stop();
    const again = pipeline.replicate();
    await pipeline.streaming(again);
    const answer = await erase(
      pipeline,
      'app.notes',
      '--key',
      // As it may be written as well.
      '["01","02001"]',
      '--confirm',
      'app.notes',
      ...why,
    );
    expect(answer).toMatchObject({
      code: 0,
      ok: true,
      tables: [{ table: 'app.notes', hot: 0, tombstones: 1, referred: 0, streamed: true }],
    });
    expect(Object.fromEntries(answer.destinations.map(({ destination, row }) => [destination, row]))).toEqual(
      {
        replica: 'gone',
        lake: 'stays',
      },
    );
    // One of a table that was renamed since.
    await source.query(`insert into tidemark_retention.cold_storage_archive (table_schema, table_name, row_key, tenant, position,
      delivered_to, content_hash, hash_version, hashed_columns, salt, policy_version)
      values ('app', 'former', '["1","1"]', '1', '', '[]', sha256('x'), 1, '{id}', sha256('y'), 1)`);
    const report = await erase(pipeline, ...ofTenant('01'));
    expect(report).toMatchObject({
      code: 0,
      ok: true,
      tenant: '1',
      without: [],
      untracked: [{ table: 'app.former', tombstones: 1 }],
    });
    // Children first.
    expect(report.tables.map(({ table, hot, tombstones: many }) => [table, hot, many])).toEqual([
      ['app.comments', 1, 0],
      ['app.notes', 3, 5],
    ]);
    expect(report.topics.find(({ topic }) => topic.endsWith('app.notes'))!.until).not.toBeNull();
    const { rows } = await replica.query(
      'select count(*)::int as rows from app.notes where organization_id = 1',
    );
    expect(rows).toEqual([{ rows: 0 }]);
    for (const destination of pipeline.destinations) {
      expect(await verified(pipeline, destination)).toMatchObject({ status: 'equal', evicted: 3 });
      for (const row of await retiredRows(pipeline, destination))
        expect(row.get('organization_id')).toBe('4');
    }
    // The Tombstones stay, and nothing tells any more what they are of.
    for (const row of await tombstones(pipeline)) {
      const gone = row.tenant === '1' && row.table_name === 'notes';
      expect([row.salt === null, row.erased_at !== null, row.erased_by !== null]).toEqual([gone, gone, gone]);
    }
    const recalled = await pipeline.command(['recall', 'app.notes', '--all', '--json', '--reason', 'audit']);
    expect(JSON.parse(recalled.stdout)).toMatchObject({ recalled: 3, selected: 3 });
    // Once more changes nothing. Of a tenant whose rows came back, and are referred to by others, what is free goes.
    expect((await erase(pipeline, ...ofTenant('1'))).tables).toMatchObject([
      { hot: 0, tombstones: 0 },
      { hot: 0, tombstones: 0 },
    ]);
    expect(await erase(pipeline, 'app.notes', ...ofTenant('4'))).toMatchObject({
      code: 1,
      tables: [{ hot: 8, tombstones: 3, referred: 1 }],
    });
    expect(await notesLeft(pipeline)).toContain(4011);
    const { rows: kept } = await source.query(
      `select tenant, keys, asked_by, ended_at is not null as ended from tidemark_retention.erasures order by begun_at`,
    );
    expect(kept).toHaveLength(4);
    expect(kept[0]).toEqual({ tenant: null, keys: 1, asked_by: 'Ada', ended: true });
    for (const destination of pipeline.destinations)
      expect(await verified(pipeline, destination)).toMatchObject({ status: 'equal', evicted: 0 });
    await Promise.all([again.stop(), delivery.stop()]);
  }));

test('an erasure that dies goes on; one of a parked table reaches destinations when the table comes back', () =>
  faults.run('erase-kills', retentionOptions, async (pipeline) => {
    const { source } = pipeline;
    const { reader, delivery } = await evicted(pipeline);
    const dying = new TidemarkProcess({
      name: 'erase',
      args: ['erase', ...ofTenant('1'), '--config', pipeline.configFile],
      env: { ...pipeline.environment },
      logFile: join(pipeline.directory, 'erase.log'),
      failpoints: 'before-erase-commit=kill@2',
    });
    expect(await dying.exitsWithin(60_000), dying.output().slice(-2000)).toBe('SIGKILL');
    expect(await notesLeft(pipeline)).toHaveLength(27);
    expect(await erase(pipeline, ...ofTenant('1'))).toMatchObject({
      code: 0,
      tables: [{}, { hot: 3, tombstones: 6 }],
    });

    await source.query(
      `alter table app.notes alter code type text; update app.notes set code = 'cd' where id = 4011`,
    );
    await pipeline.published();
    const waiting = await erase(pipeline, '--timeout', '1s', ...ofTenant('4'));
    expect(waiting).toMatchObject({ code: 1, tables: [{}, { hot: 6, tombstones: 3 }] });
    expect(waiting.destinations.map(({ row, waitsFor }) => [row, waitsFor])).toEqual(
      pipeline.destinations.map(() => ['waiting', 'table is parked']),
    );
    const resumed = await pipeline.command(['resume', 'app.notes', '--as', 'evolve']);
    expect(resumed.code, resumed.stderr).toBe(0);
    expect(await erase(pipeline, ...ofTenant('4'))).toMatchObject({ code: 0, ok: true });
    for (const destination of pipeline.destinations)
      expect(await retiredRows(pipeline, destination)).toEqual([]);
    await Promise.all([reader.stop(), delivery.stop()]);
  }));
