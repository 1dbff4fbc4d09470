/** The backlogs that are raced over: what an application may have written while nobody read. */
import type pg from 'pg';
import { bulkFindings } from '../../src/sample/bulk.ts';
import { migrateSample } from '../../src/sample/migrate.ts';
import { seedSample } from '../../src/sample/seed.ts';
import type { Backlog } from './backlog-race.ts';

async function emptySample(client: pg.Client): Promise<void> {
  await migrateSample(client);
  await seedSample(client, { seed: 1, findings: 0 });
}

const smallTables = Array.from({ length: 20 }, (_, i) => `app.small_${i + 1}`);

const wideTypes = [
  'integer',
  'bigint',
  'text',
  'timestamptz',
  'numeric(12,2)',
  'boolean',
  'double precision',
  'uuid',
];
const wideValues = [
  'n::int',
  'n::bigint * 1000003',
  `'value ' || n`,
  `timestamptz '2026-01-05 08:00+00' + n * interval '1 second'`,
  '(n % 100000) / 100.0',
  'n % 2 = 0',
  'n * 1.5',
  `md5(n::text)::uuid`,
];
const wideColumns = Array.from({ length: 199 }, (_, i) => i % wideTypes.length);

export const backlogs: readonly Backlog[] = [
  {
    name: 'wal-to-kafka',
    what: 'inserted findings of about 312 B of pgoutput',
    rows: 500_000,
    peerTable: 'app.findings',
    prepare: emptySample,
    write: (client, rows, round) => bulkFindings(client, { rows, seed: round }),
  },
  {
    name: 'updates',
    what: 'updates, half of which leave a TOASTed column unchanged, and as many deletes',
    rows: 500_000,
    prepare: async (client) => {
      await emptySample(client);
      await bulkFindings(client, { rows: Number(process.env.BENCH_ROWS ?? 500_000) / 2, seed: 0 });
      // Incompressible, so that it does lie outside the row.
      await client.query(`
        update app.findings set evidence = (select string_agg(md5(id::text || n), '') from generate_series(1, 100) as n)
         where get_byte(uuid_send(id), 15) % 2 = 0`);
    },
    write: async (client) => {
      const updated = await client.query(`update app.findings set status = status, updated_at = now()`);
      const deleted = await client.query('delete from app.findings');
      return updated.rowCount! + deleted.rowCount!;
    },
  },
  {
    name: 'small-transactions',
    what: 'transactions of one row over 20 tables',
    rows: 200_000,
    prepare: async (client) => {
      await client.query('create schema app');
      for (const table of smallTables)
        await client.query(
          `create table ${table} (organization_id uuid, id bigint primary key, title text, score float8, at timestamptz)`,
        );
    },
    write: async (client, rows) => {
      const insert = (table: string) => `insert into ${table}
        values (md5((n % 50)::text)::uuid, n, 'a row of a small transaction', n * 1.5, clock_timestamp());`;
      await client.query(`set synchronous_commit = off`);
      await client.query(`do $$ declare n bigint; begin
        for n in 1..${rows} loop
          case n % ${smallTables.length}
            ${smallTables.map((table, i) => `when ${i} then ${insert(table)}`).join('\n')}
          end case;
          commit;
        end loop; end $$`);
      return rows;
    },
  },
  {
    name: 'wide-rows',
    what: 'rows of 200 columns of eight types',
    rows: 200_000,
    prepare: async (client) => {
      await client.query('create schema app');
      const columns = wideColumns.map((type, i) => `c${i} ${wideTypes[type]}`);
      await client.query(`create table app.wide (id bigint primary key, ${columns.join(', ')})`);
    },
    write: async (client, rows) => {
      const values = wideColumns.map((type) => wideValues[type]);
      await client.query(
        `insert into app.wide select n, ${values.join(', ')} from generate_series(1, ${rows}) as n`,
      );
      return rows;
    },
  },
  {
    name: 'big-values',
    what: 'rows with a jsonb of 1 MB',
    rows: 1500,
    prepare: async (client) => {
      await client.query('create schema app');
      await client.query('create table app.documents (id bigint primary key, document jsonb)');
    },
    write: async (client, rows) => {
      for (let n = 1; n <= rows; n++)
        await client.query(
          `insert into app.documents
           select $1::bigint, jsonb_object_agg(i::text, md5($1::bigint::text || i)) from generate_series(1, 22000) as i`,
          [n],
        );
      return rows;
    },
  },
];
