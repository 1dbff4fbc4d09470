/** Tables with dropped columns: what Postgres refuses while they are published with a column list, and the ways around. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FaultStack, type Pipeline, until } from '../fixtures/pipeline.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('column-lists');
});
afterAll(async () => {
  await faults?.stop();
});

const config = { 'kafka.topic.partitions': '2', 'source.publication.interval': '500ms' };

async function follow(pipeline: Pipeline, migrations: (publication: string) => string[][]): Promise<void> {
  const { source } = pipeline;
  await source.query(`create table app.people (id int primary key, name varchar(10), age int, email text)`);
  await source.query(`insert into app.people values (1, 'a', 1, 'planted@example.org')`);
  const reader = pipeline.replicate();
  const delivery = pipeline.deliver();
  await pipeline.streaming(reader);
  const { rows } = await source.query<{ pubname: string }>(
    `select pubname from pg_publication_tables where tablename = 'people'`,
  );
  await source.query(`insert into app.people values (2, 'b', 2, 'planted@example.org')`);
  await pipeline.published();
  let id = 10;
  for (const statements of migrations(rows[0]!.pubname)) {
    for (const statement of statements) await source.query(statement);
    id++;
    await source.query(`insert into app.people (id, name, email) values ($1, $2, 'planted@example.org')`, [
      id,
      `row ${id}`,
    ]);
    await source.query(`update app.people set name = name || 'x' where id = $1`, [id - 1]);
    await pipeline.published();
  }
  for (const destination of pipeline.destinations) {
    const { tables } = await pipeline.verify(destination);
    expect(tables.find(({ table }) => table === 'app.people')).toMatchObject({
      hint: null,
      status: 'equal',
    });
  }
  await Promise.all([reader.stop(), delivery.stop()]);
}

test('a migration that takes the table out of the publication and puts it back is followed', () =>
  faults.run('ceremony', { config }, (pipeline) =>
    follow(pipeline, (publication) => {
      const around = (change: string, columns: string) => [
        'begin',
        `alter publication ${publication} drop table app.people`,
        change,
        `alter publication ${publication} add table app.people (${columns})`,
        'commit',
      ];
      return [
        around('alter table app.people alter column name type text', 'id, name, age'),
        around('alter table app.people drop column age', 'id, name'),
        around('alter table app.people alter column id type bigint', 'id, name'),
      ];
    }),
  ));

test('without column lists migrations need no ceremony, and the reader drops the columns', () =>
  faults.run(
    'no-lists',
    { config: { ...config, 'source.publication.column.lists': 'false' } },
    async (pipeline) => {
      await follow(pipeline, () => [
        ['alter table app.people alter column name type text'],
        ['alter table app.people drop column age'],
        ['alter table app.people alter column id type bigint'],
      ]);
      const { rows } = await pipeline.replica.query(`select column_name from information_schema.columns
        where table_schema = 'app' and table_name = 'people' and column_name in ('email', 'age')`);
      expect(rows).toEqual([]);
    },
  ));

test('what was written to a column before the list had it is said, and read by a snapshot; a renamed one is no new one', () =>
  faults.run('late', { config }, async (pipeline) => {
    const { source } = pipeline;
    const missed = async () => {
      const { rows } = await pipeline.control.query<{
        table: string;
        state: string;
        code: string;
        error: string;
      }>(
        `select table_name as table, state, error_code as code, error from tidemark.snapshots
          where error_code is not null order by requested_at`,
      );
      return rows;
    };
    await source.query(`create table app.people (id int primary key, name text, email text)`);
    const reader = pipeline.replicate();
    const delivery = pipeline.deliver();
    await pipeline.streaming(reader);
    await source.query(`insert into app.people values (1, 'a', 'planted@example.org')`);
    await pipeline.published();
    // Nothing was written to these: existing rows have no value, or the default, which the catalogue tells.
    await source.query(`alter table app.people add column empty int, add column given int default 7`);
    await source.query(`alter table app.people rename column name to called`);
    await until('the list has the new columns', 20_000, async () => {
      const { rows } = await source.query(
        `select from pg_publication_tables where tablename = 'people' and attnames @> '{called,empty,given}'`,
      );
      return rows.length > 0;
    });
    await source.query(`insert into app.people values (2, 'b', 'planted@example.org', 1, 2)`);
    await pipeline.published();
    expect(await missed()).toEqual([]);

    await source.query('begin');
    await source.query('alter table app.people add column plan text');
    await source.query(`update app.people set plan = 'gold' where id = 1`);
    await source.query('commit');
    await until('it is said', 20_000, async () => (await missed()).length > 0);
    expect(await missed()).toEqual([
      { table: 'app.people', state: 'failed', code: 'TM226', error: expect.stringContaining('plan') },
    ]);
    expect((await pipeline.command(['snapshot', 'start', 'app.people'])).code).toBe(0);
    expect((await pipeline.command(['snapshot', 'status', 'app.people', '--watch'])).code).toBe(0);
    await pipeline.published();
    for (const destination of pipeline.destinations)
      expect(
        (await pipeline.verify(destination)).tables.find(({ table }) => table === 'app.people'),
      ).toMatchObject({
        status: 'equal',
      });

    // Personal by its name no more: from here on it leaves Postgres as it is.
    await source.query('alter table app.people rename column email to contact');
    await until('it is said', 20_000, async () => (await missed()).length > 1);
    expect((await missed()).at(-1)).toMatchObject({
      code: 'TM226',
      error: expect.stringContaining('contact'),
    });
    await Promise.all([reader.stop(), delivery.stop()]);
  }));
