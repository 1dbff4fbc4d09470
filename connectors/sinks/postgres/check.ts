/** `tidemark check`: whether the destination is fit, each finding with the statement that mends it. */

import { asTidemarkError } from '../../../src/connector/failure.ts';
import type { CheckFinding, OptionValues, SinkContext } from '../../../src/connector/sink.ts';
import { Session } from './client.ts';
import { asSinkFailure } from './failures.ts';
import { type PostgresSettings, resolveSettings } from './options.ts';
import { quoteName } from './quote.ts';

const oldestVersion = 14;

export async function checkDestination(context: SinkContext, options: OptionValues): Promise<CheckFinding[]> {
  let session: Session | null = null;
  try {
    const settings = resolveSettings(options);
    session = await Session.open(settings, context.destination);
    return await findings(session, settings);
  } catch (error) {
    const failure = asTidemarkError(asSinkFailure(error, context.destination));
    return [{ level: 'error', what: `${failure.code}: ${failure.message}`, remedy: failure.remedy }];
  } finally {
    await session?.close();
  }
}

async function findings(session: Session, settings: PostgresSettings): Promise<CheckFinding[]> {
  const [server] = await session.run(`SELECT current_setting('server_version_num')::int / 10000,
  current_setting('server_encoding'), pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on',
  has_database_privilege(current_database(), 'CREATE'), has_database_privilege(current_database(), 'TEMPORARY'),
  current_setting('synchronous_commit'), current_setting('fsync'), to_regclass('_tidemark.tables') IS NOT NULL`);
  const [version, encoding, readOnly, mayCreate, mayStage, , fsync, ours] = server!.rows[0]!;
  const database = quoteName(settings.database);
  const role = quoteName(settings.user);
  const found: CheckFinding[] = [];
  const error = (what: string, remedy: string) => found.push({ level: 'error', what, remedy });
  const warn = (what: string, remedy: string) => found.push({ level: 'warn', what, remedy });

  if (Number(version) < oldestVersion)
    error(`Postgres ${version} is too old`, `Use Postgres ${oldestVersion} or later.`);
  if (readOnly === 't') error('the server is read-only', 'Point connection.url at the primary.');
  if (mayCreate === 'f')
    error('no right to create schemas', `GRANT CREATE ON DATABASE ${database} TO ${role};`);
  if (mayStage === 'f')
    error('no right to create temporary tables', `GRANT TEMPORARY ON DATABASE ${database} TO ${role};`);
  if (encoding !== 'UTF8') {
    warn(
      `the database is in ${encoding}, which cannot hold every text`,
      `CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0;`,
    );
  }
  if (fsync === 'off')
    warn('fsync is off: a crash loses acknowledged Windows', 'ALTER SYSTEM SET fsync = on;');

  const [schemas] = await session.run(`SELECT nspname FROM pg_namespace
  WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND NOT has_schema_privilege(oid, 'CREATE, USAGE')
    AND (nspname IN ('_tidemark', 'public') OR has_schema_privilege(oid, 'USAGE')) ORDER BY 1`);
  for (const [schema] of schemas!.rows) {
    const remedy = `GRANT USAGE, CREATE ON SCHEMA ${quoteName(schema!)} TO ${role};`;
    const what = `no right to create tables in schema ${JSON.stringify(schema)}`;
    if (schema === '_tidemark') error(what, remedy);
    else warn(`${what} (needed if the source has tables there)`, remedy);
  }

  const mine =
    ours === 't'
      ? `AND NOT EXISTS (SELECT FROM _tidemark.tables t WHERE t.schema_name = n.nspname AND t.table_name = c.relname)`
      : '';
  const [foreign] = await session.run(`SELECT format('%I.%I', n.nspname, c.relname), count(*) OVER ()
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', '_tidemark') ${mine}
  ORDER BY 1 LIMIT 5`);
  if (foreign!.rows.length > 0) {
    const names = foreign!.rows.map(([name]) => name!);
    const more = Number(foreign!.rows[0]![1]) - names.length;
    warn(
      `tables that Tidemark did not make would be merged into if the source has their names: ${names.join(', ')}${more > 0 ? ` and ${more} more` : ''}`,
      `Use a database of its own (CREATE DATABASE … OWNER ${role};), or ALTER TABLE ${names[0]} RENAME TO …;`,
    );
  }
  if (!found.some(({ level }) => level === 'error')) {
    found.unshift({ level: 'ok', what: `Postgres ${version} answers and has the rights`, remedy: null });
  }
  return found;
}
