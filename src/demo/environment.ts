/** Where the demo runs: servers, databases, roles and files of its own, from empty folders at every start. */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createLayout, stackLayout } from '../../compose/layout.ts';
import {
  endLeftovers,
  type PartDeath,
  type Stack,
  startStack,
  usualParts,
} from '../../compose/local-stack.ts';
import { findOwner, releaseOwnership, takeOwnership } from '../../compose/owner.ts';
import { checkPrerequisites } from '../../compose/prerequisites.ts';
import { TidemarkError } from '../platform/errors.ts';
import { endpointFromUrl } from '../platform/postgres-endpoint.ts';
import { retentionRoles, setUpRetention } from '../retain/setup.ts';
import { bulkFindings } from '../sample/bulk.ts';
import { migrateSample } from '../sample/migrate.ts';
import { seedSample } from '../sample/seed.ts';
import { agingTable } from './aging.ts';
import type { ChosenDestination } from './destinations.ts';
import { type DemoEndpoint, startEndpoint } from './endpoint.ts';
import { writeDemoFiles } from './files.ts';
import { withClient } from './with-client.ts';

export interface DemoEnvironment {
  stack: Stack;
  /** Absolute. */
  folder: string;
  configFile: string;
  /** As the application's own role. */
  sourceUrl: string;
  destinations: readonly ChosenDestination[];
  /** Ends the servers, and whatever else runs for the demo. */
  stop(): Promise<void>;
}

export interface EnvironmentOptions {
  folder: string;
  destinations: readonly ChosenDestination[];
  /** Receives progress lines. */
  say(line: string): void;
  /** A server ended although nobody asked it to. */
  onDeath(death: PartDeath): void;
  /** Gives up the start. */
  signal: AbortSignal;
}

/** Owner of the application's tables; the pipeline's role is a member of it, and no superuser. */
const application = 'app_owner';
const pipeline = 'tidemark';
const ledger = 'tidemark_control';
const warehouse = 'warehouse';
/** Lets rows of one table go. */
const retention = 'tidemark_retain';

/**
 * Starts the servers and prepares databases, roles and files. What the last demo left stays until here, for whoever
 * wants to look at it, and is then removed whole: nothing can be left over that a start would stumble upon, and the
 * disk never holds more than one demo.
 * @throws TidemarkError TM103 when a program is missing; TM901 when another demo runs or a server does not start; the
 * signal's reason
 */
export async function startEnvironment(options: EnvironmentOptions): Promise<DemoEnvironment> {
  const { folder, destinations, say, onDeath, signal } = options;
  const directory = join(folder, 'stack');
  const parts = [...usualParts, ...destinations.map(({ part }) => part).filter((part) => part !== null)];
  checkPrerequisites(parts);
  await removeLastDemo(folder, directory, say);
  const stack = await startStack({ directory, parts, log: say, onDeath, signal });
  let endpoint: DemoEndpoint | null = null;
  const stop = async () => {
    await endpoint?.close();
    await stack.stop();
  };
  try {
    if (destinations.some(({ kind }) => kind === 'webhook'))
      endpoint = await startEndpoint(join(folder, 'siem.ndjson'));
    return { ...(await prepare(stack, { folder, destinations, endpoint })), destinations, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Only ports and the server's password are kept, so that what somebody noted down stays true. */
async function removeLastDemo(folder: string, directory: string, say: (line: string) => void): Promise<void> {
  const layout = stackLayout(directory);
  await createLayout(layout);
  const owner = await findOwner(layout);
  if (owner) {
    throw new TidemarkError('TM901', `another demo runs in ${folder} (process ${owner.pid})`, {
      remedy: `Use that one, or end it with: kill ${owner.pid}`,
      retry: 'operator',
    });
  }
  // Owned while it is emptied: two demos that start at once must not remove each other's data.
  await takeOwnership(layout, 'program');
  try {
    await endLeftovers(layout, say);
    const files = ['tidemark.yaml', 'source.url', 'replica.url', 'lake.sql', '.pyiceberg.yaml'];
    const ours = ['files', 'archive', 'spill', 'instances', 'demo.log', 'siem.ndjson', ...files];
    const paths = [layout.data, layout.logs, ...ours.map((name) => join(folder, name))];
    for (const path of paths) await rm(path, { recursive: true, force: true });
  } finally {
    await releaseOwnership(layout);
  }
}

async function prepare(
  stack: Stack,
  {
    folder,
    destinations,
    endpoint,
  }: Pick<EnvironmentOptions, 'folder' | 'destinations'> & {
    endpoint: DemoEndpoint | null;
  },
): Promise<Omit<DemoEnvironment, 'destinations' | 'stop'>> {
  const { TIDEMARK_SOURCE_URL, TIDEMARK_KAFKA_BROKERS, TIDEMARK_REGISTRY_URL } = stack.environment;
  const adminUrl = new URL(TIDEMARK_SOURCE_URL!);
  const roles = [application, pipeline, ledger, warehouse, retention];
  const passwords = new Map(roles.map((role) => [role, randomBytes(12).toString('hex')]));
  const password = (role: string) => passwords.get(role)!;
  await withClient(adminUrl.href, async (admin) => {
    for (const role of roles) await admin.query(`create role ${role} login password '${password(role)}'`);
    // The rights of docs/operate.md: replication, and through membership all that the tables' owner may.
    await admin.query(`alter role ${pipeline} replication`);
    await admin.query(`grant ${application} to ${pipeline}`);
    for (const role of retentionRoles) await admin.query(`create role ${role} nologin`);
    await admin.query(`grant tidemark_retention to ${retention}`);
    await admin.query(`create database app owner ${application}`);
    await admin.query(`create database replica owner ${warehouse}`);
    await admin.query(`create database control owner ${ledger}`);
  });
  const urlOf = (user: string, database: string) => {
    const url = new URL(adminUrl);
    Object.assign(url, { username: user, password: password(user), pathname: `/${database}` });
    return url.href;
  };
  const sourceUrl = urlOf(application, 'app');
  await withClient(sourceUrl, migrateSample);
  await setUpRetention(await endpointFromUrl(sourceUrl));
  // What docs/retention.md has for one table.
  await withClient(sourceUrl, async (owner) => {
    await owner.query(`grant usage on schema app to ${retention}`);
    await owner.query(`grant select, insert, update, delete on ${agingTable} to ${retention}`);
    await owner.query(`grant select on app.organizations to ${retention}`);
  });
  const urls = {
    source: sourceUrl,
    pipeline: urlOf(pipeline, 'app'),
    retention: urlOf(retention, 'app'),
    control: urlOf(ledger, 'control'),
    brokers: TIDEMARK_KAFKA_BROKERS!,
    registry: TIDEMARK_REGISTRY_URL!,
  };
  const replicaUrl = urlOf(warehouse, 'replica');
  const { environment } = stack;
  const configFile = await writeDemoFiles(urls, destinations, { folder, replicaUrl, environment, endpoint });
  return { stack, folder, configFile, sourceUrl };
}

export interface HistoryOptions {
  seed: number;
  /** Besides the history: a source that has been at work for a while before anybody streams it. */
  findings: number;
  /** Of the history; the sample's own virtual time where absent. */
  end?: Date;
}

/**
 * What the tables hold before the pipeline starts: a snapshot brings it.
 * @returns rows written
 */
export async function seedHistory(
  sourceUrl: string,
  { seed, findings, end }: HistoryOptions,
): Promise<number> {
  return withClient(sourceUrl, async (source) => {
    const counts = await seedSample(source, { seed, ...(end ? { end } : {}) });
    const history = Object.values(counts).reduce((sum, { inserts }) => sum + inserts, 0);
    return history + (await bulkFindings(source, { rows: findings, seed }));
  });
}
