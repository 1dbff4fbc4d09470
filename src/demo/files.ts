/** What the demo writes for its user: a configuration to point commands at, and URLs to connect with. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ChosenDestination, DemoPlace } from './destinations.ts';

export interface DemoUrls {
  /** The application's own role. */
  source: string;
  /** The pipeline's role at the source. */
  pipeline: string;
  /** Of the role that lets rows go. */
  retention: string;
  control: string;
  brokers: string;
  registry: string;
}

/**
 * Writes tidemark.yaml, instances/*.json, source.url, replica.url and what readers of the lake need into the folder; readable by their owner alone,
 * because the passwords of the demo's databases are in them.
 * @returns the path of tidemark.yaml
 */
export async function writeDemoFiles(
  urls: DemoUrls,
  chosen: readonly ChosenDestination[],
  place: DemoPlace,
): Promise<string> {
  const { folder } = place;
  const configFile = join(folder, 'tidemark.yaml');
  const instances = join(folder, 'instances');
  await mkdir(instances, { recursive: true });
  for (const name of ['files', 'archive']) await mkdir(join(folder, name), { recursive: true });
  await write(configFile, configuration(urls));
  for (const { kind, name, cadence, options } of chosen) {
    const config = { 'connector.class': kind, tables: 'app.*', cadence, ...options(place) };
    await write(join(instances, `${name}.json`), `${JSON.stringify({ name, config }, null, 2)}\n`);
  }
  if (chosen.some(({ kind }) => kind === 'iceberg')) await writeCatalogFiles(place);
  await write(join(folder, 'source.url'), urls.source);
  await write(join(folder, 'replica.url'), place.replicaUrl);
  return configFile;
}

/** How DuckDB and pyiceberg reach the catalog, each in its own words. */
async function writeCatalogFiles({ folder, environment }: DemoPlace): Promise<void> {
  const uri = environment.TIDEMARK_ICEBERG_URL!;
  await write(
    join(folder, 'lake.sql'),
    `INSTALL iceberg; LOAD iceberg;\nATTACH '' AS lake (TYPE iceberg, ENDPOINT '${uri}', AUTHORIZATION_TYPE 'none', ACCESS_DELEGATION_MODE 'none');\n`,
  );
  await write(join(folder, '.pyiceberg.yaml'), `catalog:\n  lake:\n    type: rest\n    uri: ${uri}\n`);
}

function configuration({ pipeline, retention, control, brokers, registry }: DemoUrls): string {
  return `# Written by \`tidemark demo\` at every start; \`tidemark status\` and \`verify\` take it with --config while it runs.
source:
  id: demo
  url: '${pipeline}'
  tables: [app.*]
  tenant.column: organization_id
  # An idle source proves that it is idle this often, so that what is shown is never older.
  heartbeat.interval: 500ms
kafka:
  brokers: '${brokers}'
  # There is one broker.
  topic.replication.factor: 1
  topic.min.insync.replicas: 1
  # The demo's disk use stays small.
  topic.retention: 1h
registry.url: '${registry}'
control.url: '${control}'
retain:
  enabled: true
  url: '${retention}'
  tenants.table: app.organizations
  interval: 2s
deliver:
  instances.directory: instances
  spill.directory: spill
`;
}

async function write(file: string, text: string): Promise<void> {
  await writeFile(file, text, { mode: 0o600 });
}
