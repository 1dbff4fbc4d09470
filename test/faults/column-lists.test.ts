/** Tables with dropped columns: what Postgres refuses while they are published with a column list, and the ways around. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FaultStack, type Pipeline } from '../fixtures/pipeline.ts';

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
