/** Tenants are isolated mechanically: a destination bound to one is handed its rows alone, and all of them. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { VerifyReport } from '../../src/verify/report.ts';
import { FaultStack, type Pipeline, until } from '../fixtures/pipeline.ts';
import { random } from '../unit/deliver-random.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('tenant-bound');
});
afterAll(async () => {
  await faults?.stop();
});

const tenants = ['a', 'A', 'a ', '', "x'y", 'x"y\\', '日本', '0', 'null', 'e\u0301', 'é', 't'.repeat(300)];
const bound = ['a', "x'y", '日本', 't'.repeat(300)];

const tables = `
  create schema own;
  create table own.in_key (org text, id int, t text, primary key (org, id));
  create table own.beside_key (id int primary key, org text, t text);
  alter table own.beside_key replica identity full;
  create table own.no_key (org text, n int, t text);
  alter table own.no_key replica identity full;`;

const options = {
  destinations: [],
  tables: 'own.*',
  config: { 'source.tenant.column': 'org', 'kafka.topic.partitions': '5' },
};

/** A Postgres database of its own for each tenant. */
async function bindDestinations(pipeline: Pipeline): Promise<Map<string, pg.Client>> {
  const clients = new Map<string, pg.Client>();
  for (const [i, tenant] of bound.entries()) {
    const database = pipeline.databaseName(`tenant${i}`);
    await pipeline.control.query(`create database ${pg.escapeIdentifier(database)}`);
    const url = new URL(pipeline.stack.environment.TIDEMARK_SOURCE_URL!);
    url.pathname = `/${database}`;
    writeFileSync(
      join(pipeline.directory, 'instances', `tenant${i}.json`),
      JSON.stringify({
        name: `tenant${i}`,
        config: {
          'connector.class': 'postgres',
          tables: 'own.*',
          tenant,
          cadence: 'continuous',
          'connection.url': url.href,
        },
      }),
    );
    const client = new pg.Client({ connectionString: url.href });
    await client.connect();
    clients.set(tenant, client);
  }
  return clients;
}

test('random rows of hostile tenants: each destination has its own, and never saw another', async () => {
  const r = random();
  await faults.run('hostile-tenants', options, async (pipeline) => {
    const { source } = pipeline;
    await source.query(tables);
    const clients = await bindDestinations(pipeline);
    // Rows from before the slot come by snapshots.
    await source.query('insert into own.in_key select $1, n, $1 from generate_series(1, 50) n', ['a']);
    await source.query('insert into own.in_key select $1, n, $1 from generate_series(1, 50) n', ['A']);
    const reader = pipeline.replicate();
    const delivery = pipeline.deliver();
    await pipeline.streaming(reader);
    for (let step = 0; step < 400; step++) {
      const [org, other] = [r.pick(tenants), r.pick(tenants)];
      const id = r.integer(30);
      const text = `${org} ${step}`;
      const statements: [string, unknown[]][] = [
        ['insert into own.in_key values ($1, $2, $3) on conflict do nothing', [org, id, text]],
        ['insert into own.beside_key values ($2, $1, $3) on conflict do nothing', [org, id, text]],
        ['insert into own.no_key values ($1, $2, $3)', [r.next() < 0.1 ? null : org, id, text]],
        ['update own.in_key set t = $3 where org = $1 and id = $2', [org, id, text]],
        // A row that changes its tenant leaves one destination and comes to the other.
        [
          'update own.in_key set org = $1 where org = $3 and id = $2 and not exists (select from own.in_key where org = $1 and id = $2)',
          [org, id, other],
        ],
        ['update own.beside_key set org = $1, t = $3 where id = $2', [org, id, text]],
        ['update own.no_key set org = $1 where n = $2 and org = $3', [org, id, other]],
        ['delete from own.in_key where org = $1 and id = $2', [org, id]],
        ['delete from own.no_key where org = $1 and n < $2', [org, id]],
      ];
      const [sql, values] = step === 200 ? ['truncate own.no_key', []] : r.pick(statements);
      await source.query(sql as string, values as unknown[]);
    }
    for (const [i, tenant] of bound.entries()) {
      const { code, stdout, stderr } = await pipeline.command(['verify', `tenant${i}`, '--json']);
      expect(code, `seed ${r.seed}, ${tenant}: ${stdout}${stderr}`).toBe(0);
      const report = JSON.parse(stdout) as VerifyReport;
      expect(report.tables.map(({ table }) => table).sort()).toEqual([
        'own.beside_key',
        'own.in_key',
        'own.no_key',
      ]);
      const client = clients.get(tenant)!;
      for (const table of report.tables) {
        const own = await source.query(`select * from ${table.table} where org = $1 order by 1, 2, 3`, [
          tenant,
        ]);
        const there = await client.query('select to_regclass($1) is not null as there', [table.table]);
        if (!there.rows[0].there) {
          // By chance no row of the tenant outlived a Window.
          expect(own.rows, `seed ${r.seed}, ${tenant}`).toEqual([]);
          continue;
        }
        const { rows } = await client.query(`select distinct org from ${table.table}`);
        expect(
          rows.every(({ org }) => org === tenant),
          `${tenant}: ${JSON.stringify(rows)}`,
        ).toBe(true);
        const held = await client.query(`select * from ${table.table} order by 1, 2, 3`);
        expect(held.rows, `seed ${r.seed}, ${tenant}`).toEqual(own.rows);
      }
    }
    for (const client of clients.values()) await client.end();
    await Promise.all([reader.stop(), delivery.stop()]);
  });
});

test('a table without the tenant in its replica identity is refused by name', async () => {
  await faults.run('no-tenant', options, async (pipeline) => {
    const { source } = pipeline;
    await source.query('create schema own; create table own.plain (id int primary key, org text)');
    const clients = await bindDestinations(pipeline);
    const reader = pipeline.replicate();
    const delivery = pipeline.deliver();
    await pipeline.streaming(reader);
    await source.query(`insert into own.plain values (1, 'a')`);
    await until('TM413', 60_000, async () => {
      const { rows } = await pipeline.control.query('select distinct error_code from tidemark.units');
      return rows.length === 1 && rows[0].error_code === 'TM413';
    });
    const checked = await pipeline.command(['check', '--json']);
    expect(checked.code).toBe(1);
    expect(checked.stdout).toContain('own.plain has no tenant column in its replica identity');
    for (const client of clients.values()) {
      const { rows } = await client.query(`select to_regclass('own.plain') as held`);
      expect(rows[0].held).toBeNull();
      await client.end();
    }
    await Promise.all([reader.stop(), delivery.stop()]);
  });
});
