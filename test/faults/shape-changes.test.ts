/** Single changes of shape and identity, each as an application makes it, into both destinations. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FaultStack, type Pipeline, until } from '../fixtures/pipeline.ts';
import { installShapeNotes } from '../fixtures/shape-schedule.ts';
import { checkStream } from '../fixtures/stream-checker.ts';
import type { TidemarkProcess } from '../fixtures/tidemark-process.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('shape-changes');
});
afterAll(async () => {
  await faults?.stop();
});

const config = { 'kafka.topic.partitions': '2', 'source.publication.interval': '500ms' };

async function started(pipeline: Pipeline): Promise<{ reader: TidemarkProcess; delivery: TidemarkProcess }> {
  const reader = pipeline.replicate();
  const delivery = pipeline.deliver();
  await pipeline.streaming(reader);
  return { reader, delivery };
}

/** Statements one by one; after each the reader has published it. */
async function run(pipeline: Pipeline, statements: readonly string[], keepUp = true): Promise<void> {
  for (const statement of statements) {
    await pipeline.source.query(statement);
    if (keepUp) await pipeline.published();
  }
}

async function equal(pipeline: Pipeline, tables: readonly string[]): Promise<void> {
  await pipeline.published();
  expect((await pipeline.status()).progress?.parked ?? []).toEqual([]);
  for (const destination of pipeline.destinations) {
    const report = await pipeline.verify(destination);
    for (const name of tables)
      expect(report.tables.find(({ table }) => table === name)).toMatchObject({
        hint: null,
        status: 'equal',
      });
  }
}

test('without the event trigger, a reader that keeps up follows every compatible change', () =>
  faults.run('one-by-one', { config }, async (pipeline) => {
    await run(
      pipeline,
      [
        'create table app.plain (id int primary key, a text, b varchar(5), gone int)',
        'create table app.base (id int primary key, v text)',
        'create table app.child (extra int, primary key (id)) inherits (app.base)',
        'create table app.parts (id int, day date, v text, primary key (id, day)) partition by range (day)',
        `create table app.parts_1 partition of app.parts for values from ('2024-01-01') to ('2024-02-01')`,
        `create table app.parts_2 (id int not null, day date not null, v text, primary key (id, day))`,
        'create table app.swap (id int, v text, primary key (id) deferrable)',
        'alter table app.swap replica identity full',
        'create table app.parent (id int primary key)',
        'create table app.kid (id int primary key, parent int references app.parent)',
      ],
      false,
    );
    await started(pipeline);
    await run(pipeline, [
      `insert into app.plain select i, 'a' || i, 'b', i from generate_series(1, 5) i`,
      `alter table app.plain add column more bigint default 5`,
      `insert into app.plain values (6, 'x', 'y', 1, null)`,
      'alter table app.plain rename column a to renamed',
      `update app.plain set b = 'z' where id = 1`,
      'alter table app.plain drop column gone',
      `update app.plain set b = 'y' where id = 2`,
      'alter table app.plain alter column b type text',
      `update app.plain set b = 'longer than five' where id = 3`,
      'alter table app.plain replica identity full',
      `update app.plain set b = 'full' where id = 4`,
      'alter table app.plain replica identity default',
      `delete from app.plain where id = 5`,
      // An inheritance child is a table of its own; a change of the parent's shape is one of both.
      `insert into app.base values (1, 'b'); insert into app.child values (2, 'c', 3)`,
      'alter table app.base add column w int default 7',
      `update app.base set v = 'w'; insert into app.child values (4, 'd', 5, 6)`,
      // Partitions come and go; what they bring along or take with them is not in the stream, so they are empty.
      `insert into app.parts values (1, '2024-01-02', 'x')`,
      `alter table app.parts attach partition app.parts_2 for values from ('2024-02-01') to ('2024-03-01')`,
      `insert into app.parts values (2, '2024-02-02', 'y')`,
      'alter table app.parts add column w text default $$w$$',
      `update app.parts set v = 'z' where id = 1; update app.parts set day = '2024-02-03' where id = 1`,
      `delete from app.parts where day >= '2024-02-01'`,
      'alter table app.parts detach partition app.parts_2',
      // Keys that swap in one transaction, the constraint being checked at its end.
      `insert into app.swap values (1, 'one'), (2, 'two'), (3, repeat('toast ', 3000))`,
      'begin; set constraints all deferred; update app.swap set id = id % 3 + 1; commit',
      `insert into app.parent values (1), (2); insert into app.kid values (1, 1), (2, 2)`,
      'truncate app.parent cascade',
      `insert into app.parent values (3); insert into app.kid values (3, 3)`,
    ]);
    // Another role's index and a comment change nothing.
    await run(pipeline, [
      'create index on app.plain (renamed)',
      `comment on column app.plain.renamed is 'nothing'`,
      `update app.plain set b = 'last' where id = 1`,
    ]);
    await equal(pipeline, [
      'app.plain',
      'app.base',
      'app.child',
      'app.parts',
      'app.swap',
      'app.parent',
      'app.kid',
    ]);
  }));

test('a default that a rewrite moved into the rows is read from them; where they differ, the table is parked', () =>
  faults.run('rewritten', { config }, async (pipeline) => {
    const tables = ['once', 'later', 'parts', 'both', 'differ'];
    await run(
      pipeline,
      [
        ...tables
          .filter((name) => name !== 'parts')
          .map((name) => `create table app.${name} (id int primary key, v int)`),
        'create table app.parts (id int primary key, v int) partition by range (id)',
        'create table app.parts_1 partition of app.parts for values from (0) to (100)',
        'create table app.parts_2 partition of app.parts for values from (100) to (200)',
      ],
      false,
    );
    await started(pipeline);
    const change = (sql: (table: string) => string, names = tables) =>
      run(pipeline, [names.map((name) => sql(`app.${name}`)).join(';')]);
    await change((table) => `insert into ${table} select n, n from generate_series(1, 20) n`);
    const rewrite = 'alter column v type bigint';
    await pipeline.source.query("alter table app.once add column w text default 'it''s'");
    await pipeline.source.query(`alter table app.once ${rewrite}`);
    await pipeline.source.query('alter table app.later add column w int');
    await pipeline.source.query('vacuum full app.later');
    await pipeline.source.query('alter table app.later alter column w set default 9');
    await pipeline.source.query('alter table app.parts add column w date default $$infinity$$');
    await pipeline.source.query('vacuum full app.parts_1');
    await pipeline.source.query('vacuum full app.parts_2');
    await pipeline.source.query(`alter table app.both add column w numeric(8,2) default 1.5, ${rewrite}`);
    await pipeline.source.query('alter table app.differ add column w int default 1');
    await pipeline.source.query(
      `alter table app.differ ${rewrite}, alter column w type bigint using w + id % 2`,
    );
    await change(
      (table) => `insert into ${table} (id, v) values (50, 50); update ${table} set v = 0 where id = 3`,
    );
    await pipeline.published();
    expect((await pipeline.status()).progress?.parked).toMatchObject([{ table: 'app.differ' }]);
    for (const destination of pipeline.destinations)
      await pipeline.verify(destination, { parked: ['app.differ'] });
  }));

test('tables made later join, a publication that was altered is put right, personal columns stay at home', () =>
  faults.run('publications', { config }, async (pipeline) => {
    const { reader } = await started(pipeline);
    await run(pipeline, ['create table app.later (id int primary key, v text)'], false);
    await reader.logged('that the table joined', ({ message }) => message.startsWith('tables joined'));
    await run(pipeline, [
      `insert into app.later values (1, 'x')`,
      'alter table app.later add column email text default $$nobody@example.org$$',
      `insert into app.later values (2, 'y', 'somebody@example.org')`,
      'alter table app.later rename column email to address',
      'comment on column app.later.address is $$@personal$$',
      `insert into app.later values (3, 'z', 'somebody@example.org')`,
      'alter table app.later drop column address',
      `insert into app.later values (4, 'z')`,
    ]);
    const { rows } = await pipeline.source.query<{ pubname: string }>(
      `select pubname from pg_publication where pubname !~ '_inserts$'`,
    );
    const strange = `create table public.stranger (id int primary key)`;
    await run(
      pipeline,
      [strange, `alter publication "${rows[0]!.pubname}" add table public.stranger`],
      false,
    );
    const published = `select tablename from pg_publication_tables where tablename in ('later', 'stranger')`;
    await until('the publication is put right', 60_000, async () => {
      const { rows: found } = await pipeline.source.query<{ tablename: string }>(published);
      return found.length === 1 && found[0]!.tablename === 'later';
    });
    await run(pipeline, [`insert into app.later values (5, 'after')`]);
    await equal(pipeline, ['app.later']);
    const { rows: columns } = await pipeline.replica.query(
      `select attname from pg_attribute where attrelid = 'app.later'::regclass and attnum > 0 and not attisdropped`,
    );
    expect(columns.map(({ attname }) => attname)).toEqual(['id', 'v']);
  }));

test('a table dropped and made anew begins anew; one that took another name is parked, and named', () =>
  faults.run('names', { config }, async (pipeline) => {
    await installShapeNotes(pipeline.source);
    await run(
      pipeline,
      ['create table app.again (id int primary key, v text)', 'create table app.first (id int primary key)'],
      false,
    );
    const { reader } = await started(pipeline);
    await run(pipeline, [
      `insert into app.again values (1, 'old'), (2, 'old')`,
      'insert into app.first values (1)',
      'drop table app.again; create table app.again (id int primary key, w text)',
    ]);
    // A table that is dropped leaves its publication.
    await until('the new table is published', 60_000, async () => {
      const published = `select 1 from pg_publication_tables where tablename = 'again'`;
      return (await pipeline.source.query(published)).rowCount === 1;
    });
    await run(pipeline, [
      `insert into app.again values (2, 'new')`,
      'alter table app.first rename to second',
      'insert into app.second values (2)',
    ]);
    await reader.logged('that the renamed table is parked', ({ code }) => code === 'TM231');
    const { progress } = await pipeline.status();
    expect(progress?.parked).toMatchObject([{ table: 'app.second', code: 'TM231' }]);
    expect(progress?.parked[0]?.reason).toContain('it was app.first before');
    for (const destination of pipeline.destinations)
      await pipeline.verify(destination, { parked: ['app.second'] });
  }));

test('evolve: a change that breaks goes on as a major version, existing rows are cast', () =>
  faults.run(
    'evolve',
    {
      destinations: ['replica'],
      config: { ...config, 'source.tables': '[{pattern: app.*, on.incompatible.change: evolve}]' },
    },
    async (pipeline) => {
      await run(pipeline, ['create table app.wild (id int primary key, n int, t text)'], false);
      const { reader } = await started(pipeline);
      await run(pipeline, [
        `insert into app.wild select i, i, i::text from generate_series(1, 5) i`,
        'alter table app.wild alter n type boolean using n::boolean',
        'alter table app.wild alter t type integer using t::integer',
        `update app.wild set n = false where id = 2`,
        'alter table app.wild drop constraint wild_pkey, add primary key (t)',
        'update app.wild set id = 9 where t = 3',
        'delete from app.wild where t = 4',
      ]);
      await reader.logged('that it goes on', ({ message }) => message.includes('new major version'));
      await equal(pipeline, ['app.wild']);
    },
  ));

test('a parked table comes back with everything that was parked of it, also when the reader dies on the way', () =>
  faults.run('resume', { config: { ...config, 'kafka.batch.max.bytes': '8KiB' } }, async (pipeline) => {
    await installShapeNotes(pipeline.source);
    await run(
      pipeline,
      [
        'create table app.thing (id int primary key, n integer, t text)',
        'create table app.other (id int primary key)',
      ],
      false,
    );
    let { reader, delivery } = await started(pipeline);
    await run(pipeline, [
      `insert into app.thing select i, i, repeat('x', 3000) from generate_series(1, 20) i`,
      'insert into app.other select generate_series(1, 20)',
      'alter table app.thing alter column n type text',
      `update app.thing set n = 'seven' where id = 7`,
    ]);
    await reader.logged('that the table is parked', ({ code }) => code === 'TM231');
    await run(
      pipeline,
      [
        `insert into app.thing select i, 'text ' || i, 'y' from generate_series(21, 400) i`,
        'update app.thing set id = 1000 where id = 3',
        'delete from app.thing where id = 4',
        'alter table app.thing add column c integer default 5',
        `update app.thing set n = 'toast stays' where id between 8 and 12`,
        'alter table app.thing rename column n to m',
        'truncate app.other, app.other',
        'insert into app.other select generate_series(1, 5)',
      ],
      false,
    );
    await pipeline.published();
    const resumed = pipeline.command(['resume', 'app.thing', '--timeout', '60s']);
    await reader.logged('that the table is resumed', ({ message }) => message.includes('is resumed'));
    await reader.kill();
    reader = pipeline.replicate();
    const { code, stdout, stderr } = await resumed;
    expect(`${code} ${stdout}${stderr}`).toContain('0 ✓ app.thing is back');
    await run(pipeline, [`insert into app.thing values (2000, 'live', 'again', 6)`], false);
    await equal(pipeline, ['app.thing', 'app.other']);
    await Promise.all([reader.stop(), delivery.stop()]);
    const { parkedChanges } = await checkStream({
      brokers: pipeline.brokers,
      registryUrl: pipeline.stack.environment.TIDEMARK_REGISTRY_URL!,
      prefix: pipeline.prefix,
    });
    expect(parkedChanges).toBeGreaterThan(380);
  }));
