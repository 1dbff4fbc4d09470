/** The control database: a pool, errors with our codes, and the migrations of migrations/control. */
import { readdir, readFile } from 'node:fs/promises';
import pg, { type ClientBase, type Pool, type PoolClient } from 'pg';
import { describeCause, TidemarkError } from './errors.ts';
import { errorFields, type Logger } from './log.ts';
import { clientConfig } from './postgres-endpoint.ts';
import type { PostgresEndpoint } from './resolved-config.ts';

export const controlMigrations = new URL('../../migrations/control/', import.meta.url);

/** Any number that nothing else of ours uses: two processes that start together migrate one after the other. */
const migrationLock = 7241_0001;

/** Statements are short; one that takes longer than this waits for a lock that nobody gives back. */
const statementTimeoutMs = 30_000;

/**
 * A process that is frozen inside a transaction would keep its Units' rows locked, and nobody could take them over:
 * the server ends such a transaction. Ours hold nothing open between statements for longer than a busy machine's pause.
 */
const idleInTransactionTimeoutMs = 5_000;

/** @param max connections; a worker needs about one per Unit that finishes a Window at the same moment */
export function openControl(endpoint: PostgresEndpoint, log: Logger, max = 4): Pool {
  const pool = new pg.Pool({
    ...clientConfig(endpoint, {
      applicationName: 'tidemark control',
      statementTimeoutMs,
      idleInTransactionTimeoutMs,
    }),
    max,
  });
  // Without listeners a lost connection would end the process: the pool listens to the idle ones alone, and reports
  // them. One in use is heard of twice, here and by the query that fails.
  pool.on('connect', (client) => void client.on('error', () => {}));
  pool.on('error', (error) =>
    log.debug('an idle control connection was lost', errorFields(controlError(error))),
  );
  return pool;
}

/** Runs `work` in one transaction. @throws TidemarkError TM409 when the database does not answer */
export async function inTransaction<T>(pool: Pool, work: (client: PoolClient) => Promise<T>): Promise<T> {
  let client: PoolClient;
  try {
    client = await pool.connect();
  } catch (error) {
    throw controlError(error);
  }
  let broken: Error | undefined;
  try {
    await client.query('begin');
    const result = await work(client);
    await client.query('commit');
    return result;
  } catch (error) {
    await client.query('rollback').catch((lost: Error) => {
      broken = lost;
    });
    throw controlError(error);
  } finally {
    client.release(broken);
  }
}

/** What pg threw as TM409, or TM415 where the schema lacks what was asked for; an error of ours passes through. */
export function controlError(error: unknown): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const code = (error as { code?: unknown } | null)?.code;
  const sqlState = typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) ? code : null;
  const cause = describeCause(error);
  if (sqlState === '42501' || sqlState === '28P01' || sqlState === '28000' || sqlState === '3D000') {
    return new TidemarkError('TM409', `the control database refused: ${cause}`, {
      cause: error,
      remedy: 'Correct control.url, or grant its user what the message names.',
    });
  }
  if (sqlState === '42P01' || sqlState === '42703' || sqlState === '3F000') {
    return new TidemarkError(
      'TM415',
      `the control schema is not that of this version (SQLSTATE ${sqlState})`,
      {
        cause: error,
      },
    );
  }
  return new TidemarkError('TM409', `the control database failed: ${cause}`, { cause: error });
}

/**
 * Creates schema `tidemark` and applies the migrations that are missing, each in the one transaction of the run.
 * @returns the names applied now
 * @throws TidemarkError TM409; TM101 when the database was migrated by a newer version
 */
export async function migrateControl(pool: Pool, directory: URL = controlMigrations): Promise<string[]> {
  return inTransaction(pool, (client) => applyMigrations(client, 'tidemark', directory));
}

/**
 * Creates a schema and applies the migrations of a folder that are missing, in the transaction that is open.
 * @returns the names applied now
 * @throws TidemarkError TM101 when the schema was migrated by a newer version
 */
export async function applyMigrations(
  client: ClientBase,
  schema: 'tidemark' | 'tidemark_retention',
  directory: URL,
): Promise<string[]> {
  const files = (await readdir(directory)).filter((name) => name.endsWith('.sql')).sort();
  await client.query('select pg_advisory_xact_lock($1)', [migrationLock]);
  // Even with `if not exists` it takes CREATE on the database, which whoever was given the schema need not have.
  const { rows: there } = await client.query('select from pg_namespace where nspname = $1', [schema]);
  if (there.length === 0) await client.query(`create schema ${schema}`);
  await client.query(`
    create table if not exists ${schema}.migrations (name text primary key, applied_at timestamptz not null default now())
  `);
  const { rows } = await client.query<{ name: string }>(`select name from ${schema}.migrations`);
  const done = new Set(rows.map(({ name }) => name));
  const unknown = [...done].filter((name) => !files.includes(name)).sort();
  if (unknown.length > 0) {
    throw new TidemarkError(
      'TM101',
      `the ${schema === 'tidemark' ? 'control' : 'retention'} schema has a migration this version lacks: ${unknown[0]}`,
      {
        remedy: 'Run the version of Tidemark that migrated it, or a newer one.',
      },
    );
  }
  const missing = files.filter((name) => !done.has(name));
  for (const name of missing) {
    await client.query(await readFile(new URL(name, directory), 'utf8'));
    await client.query(`insert into ${schema}.migrations (name) values ($1)`, [name]);
  }
  return missing;
}
