/** `migrations/retention` in the source database: what `tidemark retain setup` applies, and whether it is there. */
import { readdir } from 'node:fs/promises';
import pg, { type ClientBase } from 'pg';
import { applyMigrations } from '../platform/control.ts';
import { describeCause, TidemarkError } from '../platform/errors.ts';
import { clientConfig } from '../platform/postgres-endpoint.ts';
import type { PostgresEndpoint } from '../platform/resolved-config.ts';
import { retentionSchema } from '../platform/retention-archive.ts';

/** Without login; a role of the cluster that is not there is created, where the role that sets up may. */
export const retentionRoles = ['tidemark_retention', 'tidemark_retention_officer'];

const migrations = new URL('../../migrations/retention/', import.meta.url);

/**
 * Brings the schema up to date, all of it or nothing.
 * @returns the names applied now
 * @throws TidemarkError TM101 where a newer version migrated it, TM505 where the role may not, TM201
 */
export async function setUpRetention(endpoint: PostgresEndpoint): Promise<string[]> {
  const client = new pg.Client(clientConfig(endpoint, { applicationName: 'tidemark retain setup' }));
  client.on('error', () => {});
  try {
    await client.connect();
    await client.query('begin');
    const applied = await applyMigrations(client, retentionSchema, migrations);
    await client.query('commit');
    return applied;
  } catch (error) {
    if (error instanceof TidemarkError) throw error;
    const { code } = error as { code?: string };
    if (code !== undefined && /^(28|42501|3D)/.test(code)) {
      throw new TidemarkError('TM505', `the retention schema cannot be set up: ${describeCause(error)}`, {
        cause: error,
        remedy: `Name a role in retain.setup.url that may create schemas in this database and roles; or let such a role run: ${retentionRoles.map((role) => `create role ${role} nologin;`).join(' ')}`,
      });
    }
    throw new TidemarkError('TM201', `the source does not answer: ${describeCause(error)}`, { cause: error });
  } finally {
    await client.end().catch(() => {});
  }
}

/** @throws TidemarkError TM501 */
export async function requireSetUp(client: ClientBase): Promise<void> {
  const { rows } = await client.query<{ usable: boolean }>(
    `select has_schema_privilege(oid, 'usage') as usable from pg_namespace where nspname = '${retentionSchema}'`,
  );
  if (!rows[0]) throw new TidemarkError('TM501', 'the source database has no schema for retention');
  if (!rows[0].usable) {
    throw new TidemarkError('TM505', 'this role may not use the schema for retention', {
      remedy: 'grant tidemark_retention to <the role of retain.url>;',
    });
  }
  const applied = await client.query<{ name: string }>(`select name from ${retentionSchema}.migrations`);
  const files = (await readdir(migrations)).filter((name) => name.endsWith('.sql'));
  const known = new Set(applied.rows.map(({ name }) => name));
  const missing = files.filter((name) => !known.has(name));
  if (missing.length > 0)
    throw new TidemarkError('TM501', `the retention schema lacks the migration ${missing[0]}`);
}
