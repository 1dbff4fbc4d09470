/** The retention service's connection to the source database: values as the stream has them, and the lock of the one who works. */
import pg, { type Client } from 'pg';
import { asTidemarkError, describeCause, TidemarkError } from '../platform/errors.ts';
import { clientConfig } from '../platform/postgres-endpoint.ts';
import type { PostgresEndpoint } from '../platform/resolved-config.ts';
import { valueStatements } from '../replicate/value-session.ts';

/** Beside a number that stands for the source. Held by the session, and so lost with it. */
const workerLock = 7241_0005;
/** Of whoever places a legal hold, and of a batch (migrations/retention). */
const holdLock = 7241_0004;

/** Who waits for a lock longer than this gives the batch up. */
const lockTimeoutMs = 10_000;
const statementTimeoutMs = 300_000;

const rawText = { getTypeParser: () => (value: string) => value } as unknown as pg.CustomTypesConfig;

/** A row's values as their types' output functions print them: Cells (connector/sink.ts). */
export type TextRow = (string | null)[];

/** @param purpose beside the service's own sessions, which `retain status` looks for @throws TidemarkError TM201, TM202 */
export async function connectRetention(
  endpoint: PostgresEndpoint,
  sourceId: string,
  purpose = 'retain',
): Promise<Client> {
  const client = new pg.Client(
    clientConfig(endpoint, {
      applicationName: `tidemark ${purpose}/${sourceId}`,
      statementTimeoutMs,
      lockTimeoutMs,
      // A process that froze inside a batch must not keep rows locked.
      idleInTransactionTimeoutMs: 30_000,
    }),
  );
  client.on('error', () => {});
  try {
    await client.connect();
    // A policy of row security would hide rows; an error is better. With an older view of the source than the locks that were
    // waited for, a legal hold that was placed meanwhile would not be seen.
    const own = [
      'set row_security = off',
      'set session characteristics as transaction isolation level read committed',
    ];
    await client.query([...valueStatements, ...own].join('; '));
    return client;
  } catch (error) {
    await client.end().catch(() => {});
    throw retentionError(error);
  }
}

/** Whether this session is the one that works. */
export async function takeWork(client: Client, sourceId: string): Promise<boolean> {
  const { rows } = await client.query<{ taken: boolean }>(
    'select pg_try_advisory_lock($1, hashtext($2)) as taken',
    [workerLock, sourceId],
  );
  return rows[0]!.taken;
}

/** Until the end of the transaction nobody can place a legal hold. */
export async function holdBack(client: Client): Promise<void> {
  await client.query('select pg_advisory_xact_lock($1)', [holdLock]);
}

/**
 * Until the end of the transaction rows are found by their keys, one after the other: where a table was not analyzed since
 * it grew, Postgres would read all of it for each batch, or, what is worse, for each key. (A recall of 100,000 rows among
 * 200,000 Tombstones took 31 s instead of 22.)
 */
export async function findByKey(client: Client): Promise<void> {
  await client.query(
    'set local enable_hashjoin = off; set local enable_mergejoin = off; set local enable_material = off',
  );
}

/** The other way around, for questions about a whole table: it is not gone through once more for each of its rows. */
export async function readWhole(client: Client): Promise<void> {
  await client.query('set local enable_nestloop = off; set local jit = off');
}

export async function textRows(client: Client, text: string, values: unknown[] = []): Promise<TextRow[]> {
  const { rows } = await client.query({ text, values, rowMode: 'array', types: rawText });
  return rows as unknown as TextRow[];
}

/** What Postgres says of the source, by our codes; never its message where that may hold values. */
export function retentionError(error: unknown): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const { code } = error as { code?: unknown };
  if (typeof code !== 'string') return asTidemarkError(error);
  const cause = describeCause(error);
  if (code === '42501') {
    return new TidemarkError('TM505', `the source database refused: ${cause}`, {
      cause: error,
      remedy:
        'Grant the role of retain.url membership in tidemark_retention, and select, update and delete on the tables that have a policy (select on those that refer to them).',
    });
  }
  if (/^(28|3D)/.test(code)) {
    return new TidemarkError('TM202', `the source refuses the role of retain.url: ${cause}`, {
      cause: error,
      remedy: 'Check user, password and database in retain.url.',
    });
  }
  return new TidemarkError('TM507', `the source database failed: ${cause}`, { cause: error });
}
