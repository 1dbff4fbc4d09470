/** Where the demo runs: its own servers, databases, roles and configuration files, fresh at every start. */
import { randomBytes } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { migrateSample } from '../sample/migrate.ts';
import { seedSample } from '../sample/seed.ts';

export interface DemoEnvironment {
  stack: Stack;
  /** tidemark.yaml of the demo: `status` and `verify` can be pointed at it while the demo runs. */
  configFile: string;
  /** Folder of the Parquet files. */
  lake: string;
  sourceUrl: string;
  replicaUrl: string;
}

/** The application's own role; the pipeline's role is a member, not a superuser. */
const applicationRole = 'app_owner';
const pipelineRole = 'tidemark';

/**
 * Starts the servers in `folder` after wiping what an earlier demo left there.
 * @param say receives progress lines
 * @throws TidemarkError TM103 when a program is missing
 */
export async function startEnvironment(
  folder: string,
  say: (line: string) => void,
): Promise<DemoEnvironment> {
  // Servers of an interrupted demo are ended by startStack, which needs their records: it goes first.
  const stackFolder = join(folder, 'stack');
  const stack = await startStack({ directory: stackFolder, log: say });
  try {
    for (const name of ['lake', 'spill', 'instances', 'tidemark.yaml'])
      await rm(join(folder, name), { recursive: true, force: true });
    const run = randomBytes(3).toString('hex');
    const password = randomBytes(12).toString('hex');
    const adminUrl = stack.environment.TIDEMARK_SOURCE_URL!;
    await prepareDatabases(adminUrl, password);
    const urlOf = (user: string, database: string) => {
      const url = new URL(adminUrl);
      url.username = user;
      url.password = password;
      url.pathname = `/${database}`;
      return url.toString();
    };
    const environment: DemoEnvironment = {
      stack,
      configFile: join(folder, 'tidemark.yaml'),
      lake: join(folder, 'lake'),
      sourceUrl: urlOf(applicationRole, 'app'),
      replicaUrl: urlOf(pipelineRole, 'replica'),
    };
    const source = new pg.Client(environment.sourceUrl);
    await source.connect();
    await migrateSample(source);
    await source.end();
    await writeFiles(
      environment,
      folder,
      `demo-${run}`,
      urlOf(pipelineRole, 'app'),
      urlOf(pipelineRole, 'control'),
    );
    return environment;
  } catch (error) {
    await stack.stop();
    throw error;
  }
}

/** The first rows, written after the slot exists so that they travel like all others. */
export async function seedEnvironment(environment: DemoEnvironment, seed: number): Promise<void> {
  const source = new pg.Client(environment.sourceUrl);
  await source.connect();
  try {
    await seedSample(source, { seed, end: new Date() });
  } finally {
    await source.end();
  }
}

async function prepareDatabases(adminUrl: string, password: string): Promise<void> {
  const admin = new pg.Client(adminUrl);
  await admin.connect();
  try {
    const { rows: slots } = await admin.query(`select slot_name, active_pid from pg_replication_slots`);
    for (const { slot_name: slot, active_pid: pid } of slots) {
      if (pid !== null) await admin.query('select pg_terminate_backend($1, 5000)', [pid]);
      await admin.query('select pg_drop_replication_slot($1)', [slot]);
    }
    for (const database of ['app', 'replica', 'control'])
      await admin.query(`drop database if exists ${database} with (force)`);
    for (const role of [pipelineRole, applicationRole]) await admin.query(`drop role if exists ${role}`);
    await admin.query(`create role ${applicationRole} login password '${password}'`);
    await admin.query(
      `create role ${pipelineRole} login replication password '${password}' in role ${applicationRole}`,
    );
    await admin.query(`create database app owner ${applicationRole}`);
    await admin.query(`create database replica owner ${pipelineRole}`);
    await admin.query(`create database control owner ${pipelineRole}`);
  } finally {
    await admin.end();
  }
}

async function writeFiles(
  environment: DemoEnvironment,
  folder: string,
  id: string,
  sourceUrl: string,
  controlUrl: string,
): Promise<void> {
  const { stack, configFile, lake, replicaUrl } = environment;
  const config = [
    '# Written by `tidemark demo`. Try: npx tidemark status --config <this file>',
    'source:',
    `  id: ${id}`,
    `  url: '${sourceUrl}'`,
    '  tables: [app.*]',
    '  tenant.column: organization_id',
    '  heartbeat.interval: 1s',
    'kafka:',
    `  brokers: '${stack.environment.TIDEMARK_KAFKA_BROKERS}'`,
    '  topic.replication.factor: 1',
    '  topic.min.insync.replicas: 1',
    `registry.url: '${stack.environment.TIDEMARK_REGISTRY_URL}'`,
    `control.url: '${controlUrl}'`,
    'deliver:',
    '  instances.directory: instances',
    '  spill.directory: spill',
    '',
  ];
  const instances = {
    replica: {
      'connector.class': 'postgres',
      tables: 'app.*',
      cadence: 'continuous',
      'connection.url': replicaUrl,
    },
    lake: { 'connector.class': 'parquet', tables: 'app.*', cadence: '5s', 'parquet.url': `file://${lake}` },
  };
  await mkdir(join(folder, 'instances'), { recursive: true });
  await mkdir(lake, { recursive: true });
  await writeFile(configFile, config.join('\n'), { mode: 0o600 });
  for (const [name, settings] of Object.entries(instances)) {
    await writeFile(
      join(folder, 'instances', `${name}.json`),
      `${JSON.stringify({ name, config: settings }, null, 2)}\n`,
      { mode: 0o600 },
    );
  }
}
