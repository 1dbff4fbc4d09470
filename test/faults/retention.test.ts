/** Invariant 7: nothing hot is deleted before it is proven delivered, and what is deleted is kept by every destination. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { isRow } from '../../src/retain/canonical-row.ts';
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

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('retention');
});
afterAll(async () => {
  await faults?.stop();
});

/** Postgres refuses to alter a column that stands in a publication's list. */
const stayOptions = {
  ...retentionOptions,
  config: { ...retentionOptions.config, 'source.publication.column.lists': 'false' },
};

/** Reader and delivery, the notes at every destination. */
async function delivered(pipeline: Pipeline) {
  const reader = pipeline.replicate();
  const delivery = pipeline.deliver();
  await pipeline.streaming(reader);
  for (const destination of pipeline.destinations) await pipeline.verify(destination);
  return { reader, delivery };
}

const ids = (tenant: number, ...ages: number[]) =>
  ages.flatMap((age) => [1, 2, 3].map((n) => tenant * 1000 + age * 10 + n)).sort((a, b) => a - b);

test('rows past their tenant’s days leave the source, and stay where they were delivered, as what they were', () =>
  faults.run('retention', retentionOptions, async (pipeline) => {
    const { source } = pipeline;
    await createNotes(pipeline);
    const { reader, delivery } = await delivered(pipeline);

    // Nothing goes without a policy, nor with one that is not enabled.
    expect(await retainOnce(pipeline)).toEqual({ ok: true, tables: [] });
    await addPolicy(pipeline, { enabled: 'false' });
    expect(await retainOnce(pipeline)).toEqual({ ok: true, tables: [] });

    await source.query(`
      insert into app.comments values (1, 1, 2002);
      insert into tidemark_retention.legal_holds (table_schema, table_name, row_keys, reason)
        values ('app', 'notes', array['["1", "2001"]'], 'case 7')`);
    await addPolicy(pipeline);
    const plan = await pipeline.command(['retain', 'plan', '--json']);
    // A tenant has 0 days: that is refused.
    expect(plan.code).toBe(1);
    expect(JSON.parse(plan.stdout)).toMatchObject({
      ok: true,
      tenantsWithoutDays: 1,
      tables: [{ table: 'app.notes', due: 9, held: 1, referred: 1, problem: null }],
    });
    const first = await retainOnce(pipeline);
    expect(first.tables).toMatchObject([{ table: 'app.notes', evicted: 7, problem: null }]);
    const left = [2001, 2002, ...ids(1, 1), ...ids(2, 1, 45, 100), ...ids(3, 1, 45, 100), ...ids(4, 1, 45)];
    expect(await notesLeft(pipeline)).toEqual(left.sort((a, b) => a - b));

    // Every destination keeps them, and says so; what it hands back is what the Tombstone speaks of.
    const archived = await tombstones(pipeline);
    expect(archived).toHaveLength(7);
    for (const destination of pipeline.destinations) {
      expect(await verified(pipeline, destination)).toMatchObject({ status: 'equal', evicted: 7 });
      const kept = await retiredRows(pipeline, destination);
      expect(kept).toHaveLength(7);
      for (const tombstone of archived) {
        const key = JSON.parse(tombstone.row_key as string) as string[];
        const row = kept.find((each) => each.get('id') === key[1])!;
        const known = {
          version: tombstone.hash_version as number,
          columns: tombstone.hashed_columns as string[],
          hash: tombstone.content_hash as Buffer,
          salt: tombstone.salt as Buffer,
        };
        expect(isRow(row, known), `${destination} ${key}`).toBe(true);
        expect(isRow(new Map([...row, ['body', 'forged']]), known)).toBe(false);
      }
    }
    expect(archived[0]).toMatchObject({
      tenant: '1',
      policy_version: 2,
      override_id: null,
      pinned_destination: null,
    });
    const receipts = archived[0]!.delivered_to as {
      destination: string;
      mark: string;
      receipt: { commitId: string };
    }[];
    expect(receipts.map(({ destination }) => destination).sort()).toEqual([...pipeline.destinations].sort());
    for (const { mark, receipt } of receipts) {
      expect(mark >= (archived[0]!.position as string)).toBe(true);
      expect(receipt.commitId).not.toBe('');
    }

    // The child goes first, then the hold; then both rows go.
    await source.query(`delete from app.comments; update tidemark_retention.legal_holds
      set released_at = now(), released_by = session_user, release_reason = 'case closed'`);
    expect((await retainOnce(pipeline)).tables).toMatchObject([{ evicted: 2 }]);
    expect((await pipeline.command(['retain', 'status'])).stdout).toContain('Tombstones of app.notes: 9');
    for (const destination of pipeline.destinations)
      expect(await verified(pipeline, destination)).toMatchObject({ status: 'equal', evicted: 9 });
    await Promise.all([reader.stop(), delivery.stop()]);
    // Who would have to rebuild destinations is told what that loses.
    const anew = await pipeline.command(['teardown', '--slot', '--yes', '--json']);
    expect(JSON.parse(anew.stdout)).toMatchObject({ ok: false, error: { code: 'TM509' } });
    expect((await pipeline.command(['teardown', '--slot', '--yes', '--reason', 'copied'])).code).toBe(0);
  }));

test('a paused destination holds what it is required for; where any will do, the Tombstone pins one that has the row', () =>
  faults.run('retention-floor', retentionOptions, async (pipeline) => {
    const { source } = pipeline;
    await createNotes(pipeline);
    const { reader, delivery } = await delivered(pipeline);
    expect((await pipeline.command(['destination', 'pause', 'lake', '--reason', 'test'])).code).toBe(0);
    await source.query(
      `insert into app.notes select organization_id, id + 5, body, score, seen, tags, detail, raw, ok, address, code, created_at from app.notes where id = 2001`,
    );
    await addPolicy(pipeline);
    const held = await retainOnce(pipeline, '8s');
    expect(held).toMatchObject({
      ok: false,
      tables: [{ evicted: 0, marked: 10, staying: { 'not delivered yet': 10 } }],
    });
    await addPolicy(pipeline, { required: `'named'`, destinations: `'{lake,replica}'` });
    expect(await retainOnce(pipeline, '8s')).toMatchObject({
      ok: false,
      tables: [{ evicted: 0, marked: 10 }],
    });
    expect(await tombstones(pipeline)).toEqual([]);
    await addPolicy(pipeline, { required: `'named'`, destinations: `'{nowhere}'` });
    const plan = await pipeline.command(['retain', 'plan', '--json']);
    expect([plan.code, JSON.parse(plan.stdout).tables[0].problem?.code]).toEqual([1, 'TM503']);
    expect(await retainOnce(pipeline, '8s')).toMatchObject({
      ok: false,
      tables: [{ problem: { code: 'TM503' } }],
    });
    await addPolicy(pipeline, { required: `'any'`, destinations: `'{}'` });
    expect(await retainOnce(pipeline)).toMatchObject({ ok: true, tables: [{ evicted: 10 }] });
    const pinned = new Set((await tombstones(pipeline)).map((row) => row.pinned_destination));
    expect([...pinned]).toEqual(['replica']);
    // The one that was paused gets them, and keeps them.
    expect((await pipeline.command(['destination', 'resume', 'lake'])).code).toBe(0);
    for (const destination of pipeline.destinations)
      expect(await verified(pipeline, destination)).toMatchObject({ status: 'equal', evicted: 10 });
    await Promise.all([reader.stop(), delivery.stop()]);
  }));

test('a row in Quarantine, a parked table and a table with withheld columns stay, each with its reason', () =>
  faults.run('retention-stays', stayOptions, async (pipeline) => {
    const { source, replica } = pipeline;
    await createNotes(pipeline);
    await source.query(`alter table app.notes add column author_email text`);
    const { reader, delivery } = await delivered(pipeline);
    await addPolicy(pipeline);
    const refused = await retainOnce(pipeline, '8s');
    expect(refused).toMatchObject({ ok: false, tables: [{ evicted: 0, problem: { code: 'TM502' } }] });
    expect(refused.tables[0]!.problem!.remedy).toContain('author_email');
    const plan = await pipeline.command(['retain', 'plan', '--json']);
    expect(plan.code).toBe(1);
    expect(JSON.parse(plan.stdout)).toMatchObject({ ok: false, tables: [{ problem: { code: 'TM502' } }] });
    await addPolicy(pipeline, { forfeit_columns: `'{author_email}'` });

    await replica.query(`alter table app.notes add constraint short check (length(body) < 20)`);
    await source.query(`update app.notes set body = repeat('x', 50) where id = 2003`);
    await pipeline.published();
    expect(await retainOnce(pipeline, '15s')).toMatchObject({
      ok: false,
      tables: [{ evicted: 8, marked: 1, staying: { 'in Quarantine': 1 }, problem: null }],
    });
    expect(await notesLeft(pipeline)).toContain(2003);
    expect((await tombstones(pipeline))[0]).toMatchObject({ forfeited_columns: ['author_email'] });

    // What a parked table's changes are is not at any destination.
    await source.query(
      `alter table app.notes alter code type int using 5; update app.notes set code = 6 where id = 2003`,
    );
    await source.query(`update app.tenants set data_retention_days = 40 where id = 4`);
    await pipeline.published();
    const parked = await retainOnce(pipeline, '8s');
    expect(parked).toMatchObject({ ok: false, tables: [{ evicted: 0, staying: { 'table is parked': 4 } }] });
    expect(await notesLeft(pipeline)).toContain(4451);
    await Promise.all([reader.stop(), delivery.stop()]);
  }));

test('an override lets rows go without proof, and the Tombstones name it', () =>
  faults.run('retention-override', { ...retentionOptions, destinations: ['replica'] }, async (pipeline) => {
    const { source } = pipeline;
    await createNotes(pipeline);
    const { reader, delivery } = await delivered(pipeline);
    expect((await pipeline.command(['destination', 'pause', 'replica', '--reason', 'test'])).code).toBe(0);
    await source.query(`update app.notes set body = 'changed' where id < 5000`);
    await addPolicy(pipeline);
    await source.query(`insert into tidemark_retention.overrides (name, table_schema, table_name, tenant, reason, expires_at)
      values ('leaving', 'app', 'notes', '4', 'the customer left', now() + interval '1 hour')`);
    expect(await retainOnce(pipeline, '8s')).toMatchObject({ tables: [{ evicted: 3, marked: 6 }] });
    const archived = await tombstones(pipeline);
    expect(archived.map(({ tenant, delivered_to }) => [tenant, delivered_to])).toEqual([
      ['4', []],
      ['4', []],
      ['4', []],
    ]);
    expect(archived.every(({ override_id }) => override_id !== null)).toBe(true);
    expect((await pipeline.command(['destination', 'resume', 'replica'])).code).toBe(0);
    expect(await verified(pipeline, 'replica')).toMatchObject({ status: 'equal', evicted: 3 });
    await Promise.all([reader.stop(), delivery.stop()]);
  }));

test('a process that dies in a batch leaves rows and Tombstones as they were, or both done; a second one waits for the first', () =>
  faults.run('retention-kills', retentionOptions, async (pipeline) => {
    await createNotes(pipeline);
    const { reader, delivery } = await delivered(pipeline);
    await addPolicy(pipeline, { batch_rows: '4' });
    const counts = async () => [(await notesLeft(pipeline)).length, (await tombstones(pipeline)).length];
    const first = pipeline.retain('before-evict-commit=kill');
    expect(await first.exitsWithin(60_000), first.output().slice(-2000)).toBe('SIGKILL');
    expect(await counts()).toEqual([36, 0]);
    const second = pipeline.retain('after-evict-commit=kill');
    expect(await second.exitsWithin(60_000), second.output().slice(-2000)).toBe('SIGKILL');
    expect(await counts()).toEqual([32, 4]);
    const third = pipeline.retain('before-evict-commit=sleep:3000');
    await third.logged('that it works', ({ message }) => message === 'running');
    await new Promise((resolve) => setTimeout(resolve, 2000));
    const other = await pipeline.command(['retain', 'run', '--once', '--json', '--timeout', '5s']);
    expect(JSON.parse(other.stdout)).toMatchObject({ ok: false, error: { code: 'TM506' } });
    expect(other.code).toBe(4);
    await third.logged('that rows went', ({ message }) => / rows of app.notes were evicted/.test(message));
    expect(await counts()).toEqual([27, 9]);
    for (const destination of pipeline.destinations)
      expect(await verified(pipeline, destination)).toMatchObject({ status: 'equal', evicted: 9 });
    await Promise.all([reader.stop(), delivery.stop(), third.stop()]);
  }));

test('what a destination does not hand back as it is stops its table, and a row is recalled only as it was', () =>
  faults.run('retention-read-back', retentionOptions, async (pipeline) => {
    const { source, replica } = pipeline;
    await createNotes(pipeline);
    const { reader, delivery } = await delivered(pipeline);
    await replica.query(`update app.notes set body = 'altered by hand' where id = 5002`);
    await addPolicy(pipeline, { read_back: `'full'` });
    expect(await retainOnce(pipeline, '20s')).toMatchObject({
      ok: false,
      tables: [{ evicted: 0, problem: { code: 'TM508' } }],
    });
    expect(await tombstones(pipeline)).toEqual([]);
    await replica.query(`delete from app.notes where id = 5002`);
    await addPolicy(pipeline, { read_back: `'sample'` });
    expect(await retainOnce(pipeline, '20s')).toMatchObject({
      ok: false,
      tables: [{ evicted: 0, problem: { code: 'TM508' } }],
    });
    expect((await pipeline.command(['snapshot', 'start', 'app.notes'])).code).toBe(0);
    expect((await pipeline.command(['snapshot', 'status', 'app.notes', '--watch'])).code).toBe(0);
    await pipeline.verify('replica');
    expect(await retainOnce(pipeline)).toMatchObject({ ok: true, tables: [{ evicted: 9, problem: null }] });

    const recall = (id: number, ...more: string[]) =>
      pipeline.command([
        'retain',
        'recall',
        'app.notes',
        `["4","${id}"]`,
        '--reason',
        'audit',
        '--json',
        ...more,
      ]);
    await replica.query(`update app.notes set body = 'altered by hand' where id = 5003`);
    const altered = await recall(5003, '--destination', 'replica');
    expect(altered.code).toBe(1);
    const [{ columns, ...refusal }] = JSON.parse(altered.stdout).refusals;
    expect(refusal).toMatchObject({ destination: 'replica', key: '["4","5003"]' });
    expect(columns).toMatchObject({
      covered: [...columns.held].sort(),
      missing: [],
      renamed: [],
      retyped: [],
    });
    expect(altered.stdout).not.toContain('altered by hand');
    // Another one has it as it was.
    expect(JSON.parse((await recall(5003)).stdout)).toMatchObject({
      ok: true,
      recalled: 1,
      from: { lake: 1 },
    });
    expect(JSON.parse((await recall(5001)).stdout)).toMatchObject({ ok: true, recalled: 1, already: 0 });
    expect(JSON.parse((await recall(5001)).stdout)).toMatchObject({ ok: true, recalled: 0, already: 1 });
    await source.query(
      `update tidemark_retention.cold_storage_archive set salt = null, salt_erased_at = now() where row_key = '["4", "5002"]' or row_key = '["4","5002"]'`,
    );
    expect((await recall(5002)).code).toBe(1);
    const { rows } = await source.query(
      `select id, body, score::text, tags, detail, ok from app.notes where id in (5001, 5003) order by id`,
    );
    expect(rows).toEqual([
      {
        id: 5001,
        body: 'body 1',
        score: '12.50',
        tags: ['a', 'b c', null],
        detail: { k: [1, 2, null] },
        ok: false,
      },
      {
        id: 5003,
        body: 'body 3',
        score: '37.50',
        tags: ['a', 'b c', null],
        detail: { k: [1, 2, null] },
        ok: false,
      },
    ]);
    // They stay for their days again, and are ordinary rows at every destination.
    expect(await retainOnce(pipeline)).toMatchObject({ ok: true, tables: [{ evicted: 0 }] });
    for (const destination of pipeline.destinations)
      expect(await verified(pipeline, destination)).toMatchObject({ status: 'equal', evicted: 7 });
    await Promise.all([reader.stop(), delivery.stop()]);
  }));

test('rows of partitions, and of tables whose identity is the whole row, go as others do', () =>
  faults.run(
    'retention-partitions',
    {
      ...retentionOptions,
      tables: 'app.parts, app.whole',
      config: { ...retentionOptions.config, 'source.values': 'text' },
    },
    async (pipeline) => {
      const { source } = pipeline;
      await createNotes(pipeline);
      await source.query(`
        create table app.parts (organization_id int, at timestamptz, name text, body text, primary key (organization_id, at, name)) partition by range (at);
        create table app.parts_old partition of app.parts for values from (minvalue) to (now() - interval '40 days');
        create table app.parts_new partition of app.parts for values from (now() - interval '40 days') to (maxvalue);
        create table app.whole (id int primary key, name text, born date);
        alter table app.whole replica identity full;
        insert into app.parts select 1, now() - n * interval '1 day', 'é"\\' || n, repeat('z', 100) from generate_series(1, 60) n;
        insert into app.whole select n, null, current_date - n from generate_series(1, 60) n;
        insert into tidemark_retention.policies (table_schema, table_name, enabled, age_column, retention_days, batch_rows)
          values ('app', 'parts', true, 'at', null, 7), ('app', 'whole', true, 'born', 50, 7)`);
      const { reader, delivery } = await delivered(pipeline);
      const { ok, tables } = await retainOnce(pipeline);
      expect({ ok, tables: tables.map(({ table, evicted }) => [table, evicted]) }).toEqual({
        ok: true,
        tables: [
          ['app.parts', 31],
          ['app.whole', 11],
        ],
      });
      for (const destination of pipeline.destinations) {
        const report = await pipeline.verify(destination);
        expect(report.tables.map(({ table, evicted }) => [table, evicted])).toEqual([
          ['app.parts', 31],
          ['app.whole', 11],
        ]);
      }
      await Promise.all([reader.stop(), delivery.stop()]);
    },
  ));
