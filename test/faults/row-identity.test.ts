/**
 * Which row a change is about, whatever tells rows apart: replica identities, keys that move, TOAST that is left
 * untouched, partitions that come and go. Every destination equals the source, or `verify` says what Postgres did not
 * tell.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import kafkajs from 'kafkajs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TableReport, VerifyReport } from '../../src/verify/report.ts';
import { type DestinationName, FaultStack, type Pipeline, until } from '../fixtures/pipeline.ts';
import { readTopics } from '../fixtures/read-topics.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('row-identity');
});
afterAll(async () => {
  await faults?.stop();
});

/** The sample application is not the point here: every table is a Unit, and takes its time. */
const own = { tables: 'own.*', config: { 'source.publication.interval': '500ms' } };

/** Beyond what a page holds: Postgres moves it out of line, and sends it only where it changed. */
const large = (seed: string) =>
  `(select string_agg(md5(${seed} || i::text), '') from generate_series(1, 200) i)`;

async function verifyAll(pipeline: Pipeline): Promise<void> {
  for (const destination of pipeline.destinations) await pipeline.verify(destination);
}

/** What verify says where a difference is expected. */
async function differences(
  pipeline: Pipeline,
  destination: DestinationName,
): Promise<Record<string, TableReport>> {
  const { code, stdout } = await pipeline.command(['verify', destination, '--json', '--timeout', '120s']);
  expect(code, stdout).toBe(1);
  const { tables } = JSON.parse(stdout) as VerifyReport;
  return Object.fromEntries(
    tables.filter(({ status }) => status !== 'equal').map((report) => [report.table, report]),
  );
}

async function snapshotsDone({ control }: Pipeline): Promise<void> {
  await until('the snapshots are done', 60_000, async () => {
    const { rows } = await control.query<{ state: string }>('select state from tidemark.snapshots');
    return rows.length > 0 && rows.every(({ state }) => !['requested', 'running'].includes(state));
  });
}

const identityTables = `
  create schema own;
  create table own.by_key (id int primary key, n int, t text);
  create table own.by_key_full (id int primary key, n int, t text);
  alter table own.by_key_full replica identity full;
  create table own.by_index (id int, code text not null unique, n int, t text);
  alter table own.by_index replica identity using index by_index_code_key;
  create table own.whole_row (id int, n int, t text);
  alter table own.whole_row replica identity full;
  create table own.including (id int, n int, t text, primary key (id) include (n));
  alter table own.including replica identity full;
  create table own.swapping (id int primary key deferrable initially deferred, n int, t text);
  alter table own.swapping replica identity full;
  create table own.tenanted (organization_id int, id int, n int, t text, primary key (organization_id, id));
  create table own.anonymous (id int primary key, n int);
  alter table own.anonymous replica identity nothing;
  create table own.bare (id int, n int);
  create table own.late (id int primary key deferrable, n int);`;

/** Of each: rows 1 to 12. */
const filled = ['by_key', 'by_key_full', 'whole_row', 'including', 'swapping'];
const everyTable = [...filled, 'by_index', 'tenanted'];

const fill = [
  ...filled.map(
    (name) => `insert into own.${name} select i, i, ${large('i::text')} from generate_series(1, 12) i;`,
  ),
  `insert into own.by_index select i, 'code ' || i, i, ${large('i::text')} from generate_series(1, 12) i;`,
  `insert into own.tenanted select 1 + i % 2, i, i, ${large('i::text')} from generate_series(1, 12) i;`,
  `insert into own.anonymous select i, i from generate_series(1, 5) i;`,
  `insert into own.bare select i, i from generate_series(1, 5) i;`,
  `insert into own.late select i, i from generate_series(1, 5) i;`,
].join('\n');

describe('a row is known', () => {
  test('by key, index or whole row, wherever TOAST is left untouched and however often it changes', () =>
    faults.run('identities', own, async (pipeline) => {
      const { source } = pipeline;
      await source.query(`${identityTables} ${fill}`);
      const reader = pipeline.replicate();
      const delivery = pipeline.deliver();
      await pipeline.streaming(reader);
      await snapshotsDone(pipeline);
      await verifyAll(pipeline);

      // After a snapshot, untouched: once, and again before anything else brings the value.
      for (const table of everyTable) {
        await source.query(`update own.${table} set n = n + 1 where id <= 6`);
        await source.query(`update own.${table} set n = n + 1 where id <= 3`);
        await source.query(`update own.${table} set t = ${large(`'new' || n::text`)} where id in (2, 5)`);
        await source.query(`update own.${table} set n = -n where id in (2, 5)`);
      }
      await verifyAll(pipeline);

      // Together with a change of key: alone, twice, there and back, and onto the place of a deleted row.
      const inOne = (...statements: string[]) => source.query(`begin; ${statements.join('; ')}; commit;`);
      for (const table of filled) {
        await source.query(`update own.${table} set id = id + 100 where id in (1, 2)`);
        await inOne(
          `update own.${table} set id = 203 where id = 3`,
          `update own.${table} set id = 303 where id = 203`,
        );
        await inOne(
          `update own.${table} set id = 204 where id = 4`,
          `update own.${table} set id = 4 where id = 204`,
        );
        await inOne(`delete from own.${table} where id = 5`, `update own.${table} set id = 5 where id = 6`);
      }
      await source.query(`update own.by_index set code = 'moved ' || code where id in (1, 2)`);
      await inOne(
        `update own.by_index set code = 'x' where id = 3`,
        `update own.by_index set code = 'code 3' where id = 4`,
        `update own.by_index set code = 'code 4' where id = 3`,
      );
      await source.query(`update own.tenanted set organization_id = 3 where id in (1, 2)`);
      await source.query(`update own.tenanted set organization_id = 1, id = 400 where id = 3`);
      await verifyAll(pipeline);

      // Keys that swap within a statement, and rotate within a Transaction.
      await source.query(`update own.swapping set id = case id when 7 then 8 else 7 end where id in (7, 8)`);
      await inOne(
        `update own.swapping set id = 10 where id = 9`,
        `update own.swapping set id = 11 where id = 10 and n = 10`,
        `update own.swapping set id = 9 where id = 11 and n = 11`,
      );
      // Two rows that are equal for a moment.
      await inOne(
        `insert into own.swapping values (500, 1, 'same')`,
        `insert into own.swapping values (500, 1, 'same')`,
        `update own.swapping set id = 501 where ctid = (select min(ctid) from own.swapping where id = 500)`,
      );
      await verifyAll(pipeline);

      // Many times in one Transaction.
      for (const table of filled) {
        await inOne(
          `insert into own.${table} values (600, 1, 'first')`,
          `update own.${table} set n = 2, t = ${large(`'many'`)} where id = 600`,
          `update own.${table} set n = 3 where id = 600`,
          `delete from own.${table} where id = 600`,
          `insert into own.${table} values (600, 4, ${large(`'again'`)})`,
          `update own.${table} set n = 5 where id = 600`,
        );
        await inOne(
          `insert into own.${table} values (601, 1, 'gone')`,
          `delete from own.${table} where id = 601`,
        );
        await inOne(
          `delete from own.${table} where id = 12`,
          `insert into own.${table} values (12, 0, 'back')`,
          `delete from own.${table} where id = 12`,
        );
        await inOne(
          `delete from own.${table} where id = 11`,
          `insert into own.${table} values (11, 0, 'other')`,
        );
        await inOne(...Array.from({ length: 300 }, () => `update own.${table} set n = n + 1 where id = 600`));
      }
      await verifyAll(pipeline);
      await expectLinks(pipeline, 'by_key', { id: 1 }, { id: 101 });

      // Without an identity inserts and truncates alone are sent; whoever asks is told.
      await source.query(`insert into own.anonymous values (6, 6); insert into own.bare values (6, 6);
        insert into own.late values (6, 6)`);
      await verifyAll(pipeline);
      for (const name of ['anonymous', 'bare', 'late'])
        await source.query(`update own.${name} set n = 0 where id = 1`);
      await source.query('delete from own.bare where id = 2');
      for (const destination of pipeline.destinations) {
        const found = await differences(pipeline, destination);
        expect(Object.keys(found).sort()).toEqual(['own.anonymous', 'own.bare', 'own.late']);
        for (const { hint } of Object.values(found)) expect(hint).toContain('has no replica identity');
      }
      await source.query('truncate own.anonymous, own.bare, own.late');
      await verifyAll(pipeline);
      await Promise.all([reader.stop(), delivery.stop()]);
    }));
});

/** A change of key is a delete and a create that name each other. */
async function expectLinks(pipeline: Pipeline, table: string, from: object, to: object): Promise<void> {
  const { SchemaRegistry } = await import('@kafkajs/confluent-schema-registry');
  const registry = new SchemaRegistry({ host: pipeline.stack.environment.TIDEMARK_REGISTRY_URL! });
  const kafka = new kafkajs.Kafka({ brokers: pipeline.brokers, logLevel: kafkajs.logLevel.NOTHING });
  const links: { key: Buffer; name: string; other: Buffer; isNull: boolean }[] = [];
  await readTopics(kafka, [`${pipeline.prefix}.own.${table}`], (_topic, _partition, record) => {
    for (const name of ['__debezium.newkey', '__debezium.oldkey']) {
      const other = record.headers?.[name];
      if (other)
        links.push({ key: record.key!, name, other: other as Buffer, isNull: record.value === null });
    }
  });
  const decoded = [];
  for (const { key, name, other, isNull } of links)
    decoded.push({
      name,
      key: { ...(await registry.decode(key)) },
      other: { ...(await registry.decode(other)) },
      isNull,
    });
  expect(decoded).toContainEqual({ name: '__debezium.newkey', key: from, other: to, isNull: false });
  expect(decoded).toContainEqual({ name: '__debezium.oldkey', key: to, other: from, isNull: false });
}

const partitionedTables = `
  create schema own;
  create schema aside;
  create table own.measured (day date, id int, t text, n int, primary key (day, id)) partition by range (day);
  create table own.measured_1 partition of own.measured for values from ('2026-01-01') to ('2026-02-01');
  create table own.measured_2 partition of own.measured for values from ('2026-02-01') to ('2026-03-01') partition by hash (id);
  create table own.measured_2a partition of own.measured_2 for values with (modulus 2, remainder 0);
  create table own.measured_2b partition of own.measured_2 for values with (modulus 2, remainder 1);
  create table own.logged (day date, line text) partition by list (day);
  alter table own.logged replica identity full;
  create table own.logged_1 partition of own.logged for values in ('2026-01-01');
  alter table own.logged_1 replica identity full;
  create table own.parent (id int primary key, n int);
  create table own.child (extra text, primary key (id)) inherits (own.parent);
  create table aside.stranger (primary key (id)) inherits (own.parent);
  create table own.customer (id int primary key);
  create table own.invoice (id int primary key, customer int references own.customer);
  create table own.line (id int primary key, invoice int references own.invoice);
  insert into own.measured select date '2026-01-01' + i, i, 'before', 0 from generate_series(0, 50) i;
  insert into own.logged select '2026-01-01', 'before' from generate_series(1, 3);
  insert into own.parent values (1, 1), (2, 2); insert into own.child values (1, 10, 'x'), (3, 30, 'y');
  insert into aside.stranger values (7, 7);
  insert into own.customer values (1), (2); insert into own.invoice values (1, 1); insert into own.line values (1, 1);`;

/** With rows, beside its table. It is made and filled elsewhere, so that it never joins as a table of its own. */
const apart = (name: string, month: string) => `
  create table aside.${name} (day date not null, id int not null, t text, n int);
  insert into aside.${name} select date '${month}-01' + i % 20, i, ${large(`'${name}' || i::text`)}, 0 from generate_series(1, 40) i;`;

describe('partitions', () => {
  test('are one table: rows move between them, and those that an attached one brings are read', () =>
    faults.run('partitions', own, async (pipeline) => {
      const { source } = pipeline;
      await source.query(partitionedTables);
      const check = await pipeline.command(['check']);
      expect(check.stdout).toContain('own.parent has children by inheritance (aside.stranger, own.child)');
      expect(check.stdout).toContain('add to source.tables: aside.stranger');
      let reader = pipeline.replicate();
      const delivery = pipeline.deliver();
      await pipeline.streaming(reader);
      await snapshotsDone(pipeline);
      await source.query(`update own.measured set day = day + 31 where id = 3;
        update own.measured set id = id + 1000 where id between 32 and 36;
        delete from own.measured where id = 40`);
      // Inheritance: each table for itself, one operation on all of them.
      await source.query(`update own.parent set n = n + 1; insert into own.child values (4, 40, 'z');
        insert into aside.stranger values (8, 8); delete from own.parent where id = 3`);
      await verifyAll(pipeline);

      // Attached with rows, which are updated at once, their long column untouched, and deleted.
      await source.query(`${apart('measured_3', '2026-03')} ${apart('measured_4', '2026-04')}
        alter table own.measured attach partition aside.measured_3 for values from ('2026-03-01') to ('2026-04-01');
        update own.measured set n = 1 where day >= '2026-03-01' and id % 4 = 0;
        delete from own.measured where day >= '2026-03-01' and id % 4 = 1;
        insert into own.measured values ('2026-03-30', 9000, 'after', 1)`);
      await reader.logged('that it reads a partition', ({ message }) =>
        message.startsWith('partitions joined'),
      );
      await snapshotsDone(pipeline);
      await verifyAll(pipeline);
      // A new one without rows asks for nothing.
      await source.query(
        `create table own.measured_5 partition of own.measured for values from ('2026-05-01') to ('2026-06-01')`,
      );
      await source.query(`insert into own.measured values ('2026-05-05', 1, 'fresh', 1)`);
      // While no reader runs; the default partition has no bounds of its own.
      await reader.stop();
      await source.query(`${apart('others', '2027-01')}
        alter table own.measured attach partition aside.measured_4 for values from ('2026-04-01') to ('2026-05-01');
        alter table own.measured attach partition aside.others default;
        update own.measured set n = 2 where day >= '2026-04-01' and id % 4 = 0`);
      reader = pipeline.replicate();
      await reader.logged('that it reads a partition', ({ message }) =>
        message.startsWith('partitions joined'),
      );
      await snapshotsDone(pipeline);
      await verifyAll(pipeline);
      const { rows: requests } = await pipeline.control.query(
        `select kind, state, rows::int as rows from tidemark.snapshots where table_name = 'own.measured' order by requested_at`,
      );
      expect(requests.map(({ kind, state }) => `${kind} ${state}`)).toEqual([
        'initial done',
        'ad-hoc done',
        'ad-hoc done',
      ]);
      // Of the partitions alone, also where the newest one has rows.
      expect(requests[1].rows).toBeLessThanOrEqual(41);

      // Several tables at once, those that refer to them too.
      await source.query('truncate own.customer cascade; insert into own.customer values (5)');
      await source.query('truncate own.parent; insert into own.parent values (9, 9)');
      await verifyAll(pipeline);

      // What Postgres does not tell of one partition, verify does.
      await source.query(
        'alter table own.measured detach partition aside.measured_3; truncate own.measured_1',
      );
      await reader.logged('that a partition is gone', ({ message }) =>
        message.startsWith('partitions were detached'),
      );
      for (const destination of pipeline.destinations) {
        const found = await differences(pipeline, destination);
        expect(Object.keys(found)).toEqual(['own.measured']);
        const { missing, different, extra, hint } = found['own.measured']!;
        expect({ missing, different }).toEqual({ missing: 0, different: 0 });
        expect(extra).toBeGreaterThan(50);
        expect(hint).toContain('a partition was detached, dropped or truncated by itself');
      }
      // Without a key there is nothing to read them by.
      await source.query(`create table aside.logged_2 (day date, line text);
        insert into aside.logged_2 values ('2026-01-02', 'lost');
        alter table own.logged attach partition aside.logged_2 for values in ('2026-01-02')`);
      await reader.logged(
        'that rows are not in the stream',
        ({ message, table }) =>
          message.startsWith('rows that partitions of own.logged had') && table === 'own.logged',
      );
      await Promise.all([reader.stop(), delivery.stop()]);
    }));
});

describe('what is no table to replicate', () => {
  test('is refused by name with the reason, by check and at the start', () =>
    faults.run('no-tables', { ...own, destinations: [] }, async (pipeline) => {
      const { source } = pipeline;
      await source.query(`create schema own; create table own.real (id int primary key);
        create view own.seen as select * from own.real;
        create materialized view own.kept as select * from own.real;
        create foreign data wrapper nowhere; create server nowhere foreign data wrapper nowhere;
        create foreign table own.far (id int) server nowhere;
        create table own.parted (id int primary key) partition by range (id);
        create table own.part partition of own.parted for values from (1) to (10);
        create temporary table passing (id int primary key)`);
      const quiet = await pipeline.command(['check']);
      for (const name of ['own.kept is a materialized view', 'own.far is a foreign table'])
        expect(quiet.stdout).toContain(`${name}: it is not replicated`);
      const { rows } = await source.query(
        `select n.nspname as schema from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relname = 'passing'`,
      );
      const refusals: [string, string][] = [
        ['own.seen', 'own.seen is a view, and only tables are replicated'],
        ['own.kept', 'own.kept is a materialized view, and only tables are replicated'],
        ['own.far', 'own.far is a foreign table, and only tables are replicated'],
        ['own.part', 'own.part is a partition of own.parted, and only tables are replicated'],
        [`${rows[0].schema}.passing`, 'passing is a temporary table, and only tables are replicated'],
      ];
      for (const [name, reason] of refusals) await refused(pipeline, `[own.real, ${name}]`, reason);
      await source.query('create unlogged table own.unlogged (id int primary key)');
      await refused(
        pipeline,
        '[own.*]',
        'unlogged tables are not in the WAL and cannot be tracked: own.unlogged',
      );
      await source.query(
        'drop table own.unlogged; create unlogged table own.part_2 partition of own.parted for values from (10) to (20)',
      );
      await refused(
        pipeline,
        '[own.*]',
        'partitions that are unlogged or foreign tables are not in the WAL, so their tables cannot be tracked: own.part_2',
      );
      // The start says the same.
      const reader = pipeline.replicate();
      expect(await reader.exitsWithin(60_000)).toBe(3);
      expect(reader.output()).toContain('TM202: partitions that are unlogged');
    }));
});

async function refused(pipeline: Pipeline, tables: string, reason: string): Promise<void> {
  const file = join(pipeline.directory, 'tidemark.yaml');
  writeFileSync(
    file,
    readFileSync(file, 'utf8').replace(/^source\.tables: .*$/m, `source.tables: ${tables}`),
  );
  const { code, stdout } = await pipeline.command(['check']);
  expect({ code, told: stdout.includes(reason) }, `${reason}\n${stdout}`).toEqual({ code: 1, told: true });
}
