/**
 * Commands against the control schema as older versions left it: each version's own migrations, with rows in it. One
 * migration older they work; whatever is older than that they refuse with a code and the remedy, never with SQL.
 */
import { copyFile, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import type { CommandContext } from '../../src/command/context.ts';
import { destinationCommand } from '../../src/command/destination.ts';
import { quarantineCommand } from '../../src/command/quarantine.ts';
import { snapshotCommand } from '../../src/command/snapshot.ts';
import { type StatusReport, statusCommand } from '../../src/command/status.ts';
import { verifyCommand } from '../../src/command/verify.ts';
import { formatPosition } from '../../src/connector/position.ts';
import { controlMigrations, migrateControl } from '../../src/platform/control.ts';
import { asTidemarkError, type TidemarkError } from '../../src/platform/errors.ts';
import { createLogger } from '../../src/platform/log.ts';
import { MemoryStore, memorySink } from './deliver-memory-sink.ts';

let stack: Stack;
let directory: string;
let admin: pg.Client;
let databases = 0;
const cleanups: (() => Promise<unknown>)[] = [];
const migrations = (await readdir(controlMigrations)).filter((name) => name.endsWith('.sql')).sort();

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tidemark-control-'));
  stack = await startStack({
    directory: join(import.meta.dirname, '..', '..', '.tidemark', `control-schema-${process.pid}`),
    parts: ['postgres'],
  });
  admin = new pg.Client({ connectionString: stack.environment.TIDEMARK_SOURCE_URL! });
  await admin.connect();
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});
afterAll(async () => {
  await admin?.end();
  await stack?.stop();
  if (stack) await rm(stack.directory, { recursive: true, force: true });
  await rm(directory, { recursive: true, force: true });
});

const position = formatPosition({ epoch: 1, lsn: 64n, ordinal: 1 });
const receipt = {
  position,
  rows: { upserted: 3, deleted: 0, appended: 0 },
  bytes: 9,
  contentHash: '',
  commitId: '1',
};

interface Scene {
  pool: pg.Pool;
  /** @returns what it wrote, or what it failed with */
  run(command: (context: CommandContext) => Promise<number>): Promise<string | TidemarkError>;
}

/** A control database with the first so many migrations, and what that version may have left in it. */
async function schemaOf(count: number): Promise<Scene> {
  const name = `control_${++databases}`;
  await admin.query(`create database ${name}`);
  const url = stack.environment.TIDEMARK_SOURCE_URL!.replace(/\/tidemark\b/, `/${name}`);
  const pool = new pg.Pool({ connectionString: url, max: 1 });
  cleanups.push(() => pool.end());
  const folder = join(directory, name);
  await mkdir(join(folder, 'instances'), { recursive: true });
  for (const file of migrations.slice(0, count))
    await copyFile(new URL(file, controlMigrations), join(folder, file));
  if (count > 0) {
    await migrateControl(pool, pathToFileURL(`${folder}/`));
    await pool.query(
      `insert into tidemark.sources (source_id, system_identifier, timeline, slot, epoch, state)
       values ('hot', '1', 1, 'tidemark', 1, 'streaming')`,
    );
    await pool.query(`insert into tidemark.destinations values ('hot', 'warehouse', 'memory')`);
    await pool.query(
      `insert into tidemark.units (source_id, destination, unit, token, mark, mark_time_us, merged_position, merged_sequence)
       values ('hot', 'warehouse', '*', 7, $1, 1000000, $1, 1)`,
      [position],
    );
    await pool.query(
      `insert into tidemark.deliveries (source_id, destination, unit, sequence, from_position, to_position, end_offsets,
         commit_time_us, state, token, receipt)
       values ('hot', 'warehouse', '*', 1, $1, $2, '{}', 1, 'delivered', 7, $3)`,
      [formatPosition({ epoch: 1, lsn: 1n, ordinal: 0 }), position, receipt],
    );
  }
  const file = join(folder, 'tidemark.yaml');
  // Nothing listens at port 1.
  await writeFile(
    file,
    `source: {id: hot, url: "${url}", tables: [app.*]}
kafka.brokers: 127.0.0.1:1
registry.url: http://127.0.0.1:1
control.url: "${url}"
deliver.instances.directory: instances
`,
  );
  await writeFile(
    join(folder, 'instances', 'warehouse.json'),
    JSON.stringify({ name: 'warehouse', config: { 'connector.class': 'memory', tables: 'app.*' } }),
  );
  const run: Scene['run'] = async (command) => {
    let text = '';
    const context: CommandContext = {
      configFile: file,
      json: true,
      log: createLogger({ level: 'error' }),
      sinkKinds: new Map([['memory', memorySink(new MemoryStore())]]),
      stdout: (more) => {
        text += more;
      },
      signal: new AbortController().signal,
    };
    try {
      await command(context);
      return text;
    } catch (error) {
      return asTidemarkError(error);
    }
  };
  return { pool, run };
}

const reading = {
  status: (context: CommandContext) => statusCommand(context),
  'destination list': (context: CommandContext) => destinationCommand(context, {}, ['list']),
  'destination show': (context: CommandContext) => destinationCommand(context, {}, ['show', 'warehouse']),
  'quarantine list': (context: CommandContext) => quarantineCommand(context, {}, ['list']),
  'snapshot status': (context: CommandContext) => snapshotCommand(context, {}, ['status']),
};
const others = {
  'destination pause': (context: CommandContext) => destinationCommand(context, {}, ['pause', 'warehouse']),
  'destination resume': (context: CommandContext) => destinationCommand(context, {}, ['resume', 'warehouse']),
  'destination skip': (context: CommandContext) =>
    destinationCommand(context, { yes: true, timeout: '1s' }, ['skip', 'warehouse']),
  'quarantine drop': (context: CommandContext) =>
    quarantineCommand(context, { destination: 'warehouse', yes: true }, ['drop']),
  verify: (context: CommandContext) => verifyCommand(context, { destination: 'warehouse', timeout: '1s' }),
};

/** Words of Postgres about a schema that is not as expected. */
const sql = /does not exist|relation "|column |syntax error/;

test('one migration older: what only reads shows what is there', async () => {
  const { run } = await schemaOf(migrations.length - 1);
  const shown: Record<string, string> = {};
  for (const [name, command] of Object.entries(reading)) {
    const outcome = await run(command);
    expect(outcome, name).toBeTypeOf('string');
    shown[name] = outcome as string;
  }
  const status = JSON.parse(shown.status!) as StatusReport;
  expect(status.problems.map(({ part }) => part)).not.toContain('control');
  expect(status.source.epoch).toBe(1);
  expect(status.units).toMatchObject([{ destination: 'warehouse', unit: '*', mark: position, windows: 1 }]);
  expect(JSON.parse(shown['destination list']!)).toMatchObject([
    { name: 'warehouse', quarantined: 0, credentials: { version: 0, problem: null } },
  ]);
  expect(JSON.parse(shown['destination show']!).deliveries).toMatchObject([
    { sequence: 1, credentials: null },
  ]);
});

test.each(migrations.map((_, count) => count))(
  'with %i migrations every command works or says what to do',
  async (count) => {
    const { run, pool } = await schemaOf(count);
    for (const [name, command] of Object.entries({ ...reading, ...others })) {
      const outcome = await run(command);
      const context = `${name}, ${count} migrations`;
      if (typeof outcome !== 'string') {
        expect(outcome.message, context).not.toMatch(sql);
        // Beside TM415: nobody delivers here, and this is not the server that the rows speak of.
        expect(['TM415', 'TM101', 'TM205', 'TM301', 'TM408'], context).toContain(outcome.code);
        if (outcome.code === 'TM415') expect(outcome.remedy).toContain('`tidemark run`');
      } else if (name === 'status') {
        const { problems } = JSON.parse(outcome) as StatusReport;
        const control = problems.find(({ part }) => part === 'control');
        if (!control) continue;
        expect(control, context).toMatchObject({ code: 'TM415', error: expect.not.stringMatching(sql) });
        expect(control.remedy).toContain('`tidemark run`');
      }
    }
    // The remedy: from there on all of it works.
    expect(await migrateControl(pool)).toHaveLength(migrations.length - count);
    for (const [name, command] of Object.entries(reading)) {
      const outcome = await run(command);
      if (count === 0 && name === 'destination show') continue;
      expect(outcome, name).toBeTypeOf('string');
    }
  },
);

test('a role that was given the schema needs no right on the database, as docs/operate.md has it', async () => {
  const { pool } = await schemaOf(0);
  const { database } = (await pool.query('select current_database() as database')).rows[0];
  await pool.query(`create role given login password 'pw'; create schema tidemark authorization given`);
  const url = new URL(stack.environment.TIDEMARK_SOURCE_URL!);
  const given = new pg.Pool({
    connectionString: `postgres://given:pw@${url.host}/${database}`,
    max: 1,
  });
  cleanups.push(() => given.end());
  expect(await migrateControl(given)).toEqual(migrations);
});

test('Quarantine of a destination that there is none of is no empty answer', async () => {
  const { run } = await schemaOf(migrations.length);
  for (const action of ['list', 'replay', 'drop'])
    expect(
      await run((context) => quarantineCommand(context, { destination: 'warehuose', yes: true }, [action])),
    ).toMatchObject({ code: 'TM101', remedy: expect.stringContaining('warehouse') });
});
