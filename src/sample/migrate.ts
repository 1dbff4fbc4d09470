/** Creates the sample application's schema: applies migrations/source/*.sql in order, once each. */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import type { ClientBase } from 'pg';
import { TidemarkError } from '../platform/errors.ts';

const folder = new URL('../../migrations/source/', import.meta.url);

/**
 * Brings the sample schema `app` up to date and returns the names of the files applied now (none when it was up to
 * date). Safe to call at every start and from several processes at once. The bookkeeping table is
 * `app_admin.app_migrations`, outside `app`, so that "every table of app" means the application's tables only.
 *
 * The role needs CREATE on the database. Throws TM101 when a file that was applied earlier has changed since, and
 * passes on what Postgres reports; a file that fails leaves nothing behind.
 */
export async function migrateSample(client: ClientBase): Promise<string[]> {
  const files = await readMigrations();
  const applied: string[] = [];
  // Held by the session, not by a transaction: every file commits on its own.
  await client.query(`SELECT pg_advisory_lock(hashtext('app_admin.app_migrations'))`);
  try {
    await client.query('CREATE SCHEMA IF NOT EXISTS app_admin');
    await client.query(
      `CREATE TABLE IF NOT EXISTS app_admin.app_migrations (
         name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`,
    );
    const known = await client.query<{ name: string; sha256: string }>(
      'SELECT name, sha256 FROM app_admin.app_migrations',
    );
    const hashes = new Map(known.rows.map((row) => [row.name, row.sha256]));
    for (const file of files) {
      const hash = hashes.get(file.name);
      if (hash === file.sha256) continue;
      if (hash !== undefined) {
        throw new TidemarkError('TM101', `migrations/source/${file.name} was changed after it was applied`, {
          remedy:
            'Restore the file and put the change into a new one, or drop the schemas app and app_admin.',
        });
      }
      await applyMigration(client, file);
      applied.push(file.name);
    }
  } finally {
    await client.query(`SELECT pg_advisory_unlock(hashtext('app_admin.app_migrations'))`);
  }
  return applied;
}

interface Migration {
  name: string;
  sql: string;
  sha256: string;
}

async function readMigrations(): Promise<Migration[]> {
  const names = (await readdir(folder)).filter((name) => /^\d{4}_.+\.sql$/.test(name)).sort();
  return Promise.all(
    names.map(async (name) => {
      const sql = await readFile(new URL(name, folder), 'utf8');
      return { name, sql, sha256: createHash('sha256').update(sql).digest('hex') };
    }),
  );
}

async function applyMigration(client: ClientBase, { name, sql, sha256 }: Migration): Promise<void> {
  await client.query('BEGIN');
  try {
    await client.query(sql);
    await client.query('INSERT INTO app_admin.app_migrations (name, sha256) VALUES ($1, $2)', [name, sha256]);
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  }
}
