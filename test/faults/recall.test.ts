/** Recall in bulk: what the source let go of comes back as it was, each row once, whatever dies and whatever changed since. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { RecallSummary } from '../../src/retain/recall-rows.ts';
import { FaultStack, type Pipeline, until } from '../fixtures/pipeline.ts';
import {
  addPolicy,
  createNotes,
  notesLeft,
  retainOnce,
  retentionOptions,
  verified,
} from '../fixtures/retention.ts';
import { TidemarkProcess } from '../fixtures/tidemark-process.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('recall');
});
afterAll(async () => {
  await faults?.stop();
});

type Answer = RecallSummary & { ok: boolean; code: number };

async function recall(pipeline: Pipeline, ...args: string[]): Promise<Answer> {
  const { code, stdout, stderr } = await pipeline.command(['recall', 'app.notes', '--json', ...args]);
  expect(stdout, stderr).not.toBe('');
  return { ...JSON.parse(stdout), code } as Answer;
}

const why = ['--reason', 'audit 12'];

const reshaped = {
  ...retentionOptions,
  config: { ...retentionOptions.config, 'source.publication.column.lists': 'false' },
};

test('rows come back by key and by what their Tombstones know, though the table has changed, from whoever still has them', () =>
  faults.run('recall', reshaped, async (pipeline) => {
    const { source, replica } = pipeline;
    writeFileSync(
      join(pipeline.directory, 'instances', 'archive.json'),
      JSON.stringify({
        name: 'archive',
        config: {
          'connector.class': 'jsonl',
          cadence: '1s',
          tables: 'app.notes',
          'jsonl.url': `file://${join(pipeline.directory, 'archive')}`,
        },
      }),
    );
    await createNotes(pipeline);
    await source.query('alter table app.notes add column size smallint default 5');
    const reader = pipeline.replicate();
    const delivery = pipeline.deliver();
    await pipeline.streaming(reader);
    for (const destination of [...pipeline.destinations, 'archive' as const])
      await pipeline.verify(destination as 'lake');
    await addPolicy(pipeline);
    expect(await retainOnce(pipeline)).toMatchObject({ ok: true, tables: [{ evicted: 9 }] });

    const list = await pipeline.command([
      'recall',
      'app.notes',
      '--list',
      '--json',
      '--where',
      `tenant = '4' and id < 5003`,
    ]);
    expect(JSON.parse(list.stdout)).toMatchObject({
      ok: true,
      total: 2,
      rows: [{ tenant: '4', lost: null }, { tenant: '4' }],
    });
    expect(JSON.parse(list.stdout).rows[0].destinations.sort()).toEqual(['archive', 'lake', 'replica']);
    expect(await recall(pipeline, '--where', `evicted_at > 'soon'`, ...why)).toMatchObject({
      code: 2,
      error: { code: 'TM101' },
    });
    expect((await recall(pipeline, '--all')).code).toBe(2);

    // A column comes, one gets another name, one another type, and one goes.
    await source.query(`alter table app.notes alter column size type int;
      alter table app.notes add column extra int not null default 7, drop column detail;
      alter table app.notes rename column body to content;
      insert into app.notes (organization_id, id, content, created_at) values (2, 1, 'newest', now())`);
    await pipeline.published();
    // The replica drops what the source drops; the others have it in their files.
    await until('the replica has the new shape', 30_000, async () => {
      const { rowCount } = await replica.query(
        `select from information_schema.columns where table_name = 'notes' and column_name = 'extra'`,
      );
      return rowCount === 1;
    });
    const wanted = `tenant in ('9', '4') and destination in ('lake', 'replica')`;
    const fromReplica = await recall(pipeline, '--where', wanted, '--destination', 'replica', ...why);
    expect(fromReplica).toMatchObject({ code: 1, selected: 3, recalled: 0 });
    expect(fromReplica.refused).toEqual({ 'replica does not have all of its columns any more': 3 });
    expect(fromReplica.refusals[0]!.columns).toMatchObject({
      missing: ['detail'],
      renamed: ['body → content'],
      retyped: ['size'],
    });
    const fromLake = await recall(pipeline, '--where', 'id in (5001, 5002, 5003, 5004)', ...why);
    expect(fromLake).toMatchObject({ code: 0, selected: 3, recalled: 3, refused: {}, dropped: ['detail'] });
    const fromArchive = await recall(
      pipeline,
      '--key',
      '["1","2001"]',
      '--key',
      '["1", "2002"]',
      '--key',
      '["1","1"]',
      '--destination',
      'archive',
      ...why,
    );
    expect(fromArchive).toMatchObject({
      code: 1,
      selected: 2,
      recalled: 2,
      from: { archive: 2 },
      refused: { 'it has no Tombstone': 1 },
    });
    const { rows } = await source.query(
      `select id, content, score::text, size, extra from app.notes where id in (5001, 2002) order by id`,
    );
    expect(rows).toEqual([
      { id: 2002, content: 'body 2', score: '25.00', size: 5, extra: 7 },
      { id: 5001, content: 'body 1', score: '12.50', size: 5, extra: 7 },
    ]);

    // Somebody wrote rows of such keys meanwhile: they are theirs.
    await source.query(`insert into app.notes (organization_id, id, content) values (1, 2003, 'anew')`);
    const rest = await recall(pipeline, '--all', ...why);
    expect(rest).toMatchObject({
      code: 1,
      selected: 4,
      recalled: 3,
      refused: { 'the source has a row of that key again': 1 },
    });
    const again = await recall(pipeline, '--key', '["1","2001"]', '--all', ...why);
    expect(again).toMatchObject({ code: 0, selected: 0, recalled: 0, already: 1 });
    for (const destination of pipeline.destinations)
      expect(await verified(pipeline, destination)).toMatchObject({ status: 'equal', evicted: 0 });
    await Promise.all([reader.stop(), delivery.stop()]);
  }));

test('a recall that dies goes on where it stopped', () =>
  faults.run('recall-kills', { ...retentionOptions, destinations: ['lake'] }, async (pipeline) => {
    const { source } = pipeline;
    await createNotes(pipeline);
    await source.query(`insert into app.notes select 1, 100000 + n, 'row ' || n, n, null, null, null, null, null, null, null, now() - interval '90 days'
      from generate_series(1, 2500) n`);
    const reader = pipeline.replicate();
    const delivery = pipeline.deliver();
    await pipeline.streaming(reader);
    await pipeline.verify('lake');
    await addPolicy(pipeline, { batch_rows: '5000', rows_per_second: '100000' });
    expect(await retainOnce(pipeline)).toMatchObject({ ok: true, tables: [{ evicted: 2509 }] });
    const started = (failpoints: string) =>
      new TidemarkProcess({
        name: 'recall',
        args: ['recall', 'app.notes', '--where', `tenant = '1'`, ...why, '--config', pipeline.configFile],
        env: { ...pipeline.environment },
        logFile: join(pipeline.directory, 'recall.log'),
        failpoints,
      });
    for (const [point, left] of [
      ['before-recall-commit=kill@2', 27 + 1000],
      ['after-recall-commit=kill', 27 + 2000],
    ] as const) {
      const process = started(point);
      expect(await process.exitsWithin(60_000), process.output().slice(-2000)).toBe('SIGKILL');
      expect(await notesLeft(pipeline)).toHaveLength(left);
    }
    const last = await recall(pipeline, '--where', `tenant = '1'`, ...why);
    expect(last).toMatchObject({ code: 0, selected: 506, recalled: 506, refused: {} });
    expect((await recall(pipeline, '--where', `tenant = '1'`, ...why)).selected).toBe(0);
    expect(await notesLeft(pipeline)).toHaveLength(27 + 2506);
    expect(await verified(pipeline, 'lake')).toMatchObject({ status: 'equal', evicted: 3 });
    await Promise.all([reader.stop(), delivery.stop()]);
  }));
