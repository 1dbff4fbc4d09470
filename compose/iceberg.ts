/** An Iceberg REST catalog: the server that Iceberg's own tests use, over a SQLite file. */
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { javaOptions } from './class-archive.ts';
import { ensureDownload } from './download.ts';
import type { Part, PartContext, ServerCommand } from './part.ts';
import { loopback } from './ports.ts';
import { runProgram } from './program.ts';
import { s3AccessKey, s3Bucket } from './s3.ts';

const folderOfServer = join(import.meta.dirname, 'iceberg');
const pom = join(folderOfServer, 'pom.xml');
const startClass = join(folderOfServer, 'LoopbackCatalogServer.java');

/**
 * Apache Iceberg 1.11 with tables in a directory by default, or in the stack's object store: all of them, or those whose
 * location says so. It asks nobody who they are.
 */
export function icebergPart({ layout, settings, prerequisites, log, bucketWarehouse }: PartContext): Part {
  const folder = join(layout.data, 'iceberg');
  const directory = join(folder, 'warehouse');
  const warehouse = bucketWarehouse ? `s3://${s3Bucket}/warehouse` : pathToFileURL(directory).href;
  const propertiesFile = join(folder, 'catalog.properties');
  const { ports, s3SecretKey } = settings;
  const uri = `http://${loopback}:${ports.iceberg}`;

  const prepare = async (): Promise<ServerCommand> => {
    const program = await ensureDownload(
      layout.downloads,
      {
        name: 'iceberg',
        pinFile: pom,
        furtherFiles: [startClass],
        announcement: 'Apache Iceberg 1.11 from Maven Central (93 MiB)',
        fill: (target) => fetchProgram(target, prerequisites.java),
      },
      log,
    );
    await mkdir(directory, { recursive: true });
    const properties: Record<string, string> = {
      'catalog-impl': 'org.apache.iceberg.jdbc.JdbcCatalog',
      uri: `jdbc:sqlite:${join(folder, 'catalog.db')}`,
      'jdbc.schema-version': 'V1',
      // SQLite has one writer; a second connection would be refused instead of waiting.
      clients: '1',
      warehouse,
      'io-impl': 'org.apache.iceberg.io.ResolvingFileIO',
      // Clients get the object store's keys with each table.
      'include-credentials': 'true',
      's3.endpoint': `http://${loopback}:${ports.s3}`,
      's3.path-style-access': 'true',
      // Of uploads that Java's SDK signs chunk by chunk, SeaweedFS 4.48 refused every second one for its checksum.
      's3.chunked-encoding-enabled': 'false',
      's3.access-key-id': s3AccessKey,
      's3.secret-access-key': s3SecretKey,
      'client.region': 'us-east-1',
      'http-client.type': 'urlconnection',
    };
    await writeFile(propertiesFile, propertiesText(properties), { mode: 0o600 });
    const args = [
      ...javaOptions,
      '-Xmx256m',
      '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn',
      '-cp',
      `${join(program, 'classes')}:${join(program, '*')}`,
      'org.apache.iceberg.rest.LoopbackCatalogServer',
      loopback,
      String(ports.iceberg),
      propertiesFile,
    ];
    return { file: prerequisites.java, args, cwd: folder };
  };

  return {
    name: 'iceberg',
    title: 'Iceberg REST catalog 1.11.0',
    mark: propertiesFile,
    stopSignal: 'SIGTERM',
    stopTimeoutMs: 10_000,
    prepare,
    ready: async () => {
      const response = await fetch(`${uri}/v1/config`, { signal: AbortSignal.timeout(5_000) });
      if (!response.ok) throw new Error(`GET /v1/config answers ${response.status}`);
      await response.json();
    },
    environment: () => ({
      TIDEMARK_ICEBERG_URL: uri,
      TIDEMARK_ICEBERG_WAREHOUSE: warehouse,
    }),
  };
}

async function fetchProgram(folder: string, java: string): Promise<void> {
  const remedy = 'Maven must reach Maven Central (or the mirror in its settings.xml); then start again.';
  const include = ['-DincludeScope=runtime', `-DoutputDirectory=${folder}`];
  await runProgram('mvn', ['-q', '-B', '-f', pom, 'dependency:copy-dependencies', ...include], { remedy });
  await compileJava(java, folder, startClass);
}

/** Compiles one class against the jars of a folder, one of which is the compiler, into `classes` there. */
export async function compileJava(java: string, folder: string, source: string): Promise<void> {
  const jars = (await readdir(folder))
    .filter((name) => name.endsWith('.jar'))
    .map((name) => join(folder, name));
  const compiler = jars.find((path) => /\/ecj-[^/]*$/.test(path));
  if (compiler === undefined) throw new Error('Maven ended without the compiler');
  const options = ['-17', '-nowarn', '-d', join(folder, 'classes'), '-cp', jars.join(':')];
  await runProgram(java, ['-jar', compiler, ...options, source], { remedy: 'Report it with the log.' });
  await rm(compiler);
}

function propertiesText(properties: Record<string, string>): string {
  const escaped = (text: string) => text.replace(/[\\:=#! ]/g, (each) => `\\${each}`);
  return Object.entries(properties)
    .map(([key, value]) => `${escaped(key)}=${escaped(value)}\n`)
    .join('');
}
