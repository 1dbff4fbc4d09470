/** `tidemark check`: whether the server is fit, tried out on tables of its own. */
import { randomBytes } from 'node:crypto';
import { asTidemarkError } from '../../../src/connector/failure.ts';
import type { CheckFinding, OptionValues, SinkContext } from '../../../src/connector/sink.ts';
import { Server } from './client.ts';
import { quoteName, quoteText } from './names.ts';
import { type ClickHouseSettings, resolveSettings } from './options.ts';

/** Views and tables are exchanged by name in these alone. */
const fitEngines = ['Atomic', 'Replicated', 'Shared'];
const oldestVersion = [25, 8] as const;

export async function checkDestination(context: SinkContext, options: OptionValues): Promise<CheckFinding[]> {
  let server: Server | null = null;
  try {
    const settings = resolveSettings(options);
    server = new Server(settings, context.destination);
    return await findings(server, settings);
  } catch (error) {
    const failure = asTidemarkError(error);
    return [{ level: 'error', what: `${failure.code}: ${failure.message}`, remedy: failure.remedy }];
  } finally {
    await server?.close();
  }
}

async function findings(server: Server, settings: ClickHouseSettings): Promise<CheckFinding[]> {
  const about = 'check';
  const found: CheckFinding[] = [];
  const [version] = (await server.select('SELECT version()', about))[0]!;
  const [major, minor] = version!.split('.').map(Number) as [number, number];
  if (major < oldestVersion[0] || (major === oldestVersion[0] && minor < oldestVersion[1])) {
    found.push({
      level: 'error',
      what: `ClickHouse ${version} is too old`,
      remedy: `Use ClickHouse ${oldestVersion.join('.')} or later.`,
    });
  }
  const database = quoteName(settings.database);
  const engine = await databaseEngine(server);
  if (engine === null) {
    await server.run(`CREATE DATABASE IF NOT EXISTS ${database}`, about);
  } else if (!fitEngines.includes(engine)) {
    found.push({
      level: 'error',
      what: `database ${JSON.stringify(settings.database)} has the engine ${engine}, which cannot exchange tables`,
      remedy: `CREATE DATABASE another one (ENGINE = Atomic) and name it in clickhouse.database.`,
    });
    return found;
  }
  await tryOut(server, about);
  found.unshift({ level: 'ok', what: `ClickHouse ${version} answers and has the rights`, remedy: null });
  return found;
}

export async function databaseEngine(server: Server): Promise<string | null> {
  const rows = await server.select(
    `SELECT engine FROM system.databases WHERE name = ${quoteText(server.database)}`,
    'database',
  );
  return rows[0]?.[0] ?? null;
}

/** Every kind of statement that a merge needs a right for. */
async function tryOut(server: Server, about: string): Promise<void> {
  const name = `_tidemark_check_${randomBytes(6).toString('hex')}`;
  const [one, two, view] = ['one', 'two', 'view'].map((part) => server.table(`${name}_${part}`)) as [
    string,
    string,
    string,
  ];
  const drop = [
    `DROP VIEW IF EXISTS ${view} SYNC`,
    `DROP TABLE IF EXISTS ${one} SYNC`,
    `DROP TABLE IF EXISTS ${two} SYNC`,
  ];
  const definition =
    '(id UInt8, version UInt128, deleted UInt8) ENGINE = ReplacingMergeTree(version, deleted) ORDER BY id';
  try {
    for (const sql of [
      `CREATE TABLE ${one} ${definition}`,
      `CREATE TABLE ${two} ${definition}`,
      `CREATE VIEW ${view} AS SELECT id FROM ${one} FINAL`,
      `INSERT INTO ${two} SELECT 1, 1, 0`,
      `OPTIMIZE TABLE ${two} FINAL`,
      `ALTER TABLE ${two} MOVE PARTITION tuple() TO TABLE ${one}`,
      `ALTER TABLE ${one} ADD COLUMN more UInt8`,
      `ALTER TABLE ${one} UPDATE more = 1 WHERE id = 1`,
      `ALTER TABLE ${one} DROP COLUMN more`,
      `EXCHANGE TABLES ${one} AND ${two}`,
      `TRUNCATE TABLE ${one}`,
    ]) {
      await server.run(sql, about);
    }
  } finally {
    for (const sql of drop) await server.run(sql, about).catch(() => undefined);
  }
}
