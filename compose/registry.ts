/** The Schema Registry: Apicurio Registry behind its Confluent-compatible interface. */
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type ClassArchive, classArchive, javaOptions } from './class-archive.ts';
import { ensureDownload } from './download.ts';
import type { Part, PartContext, ServerCommand } from './part.ts';
import { loopback } from './ports.ts';
import { runProgram } from './program.ts';

const pom = join(import.meta.dirname, 'registry', 'pom.xml');
const runner = 'apicurio-registry-app-3.0.9-runner.jar';

/** Apicurio Registry 3.0.9 with its schemas in an H2 file, so that schema ids outlive a restart. */
export function registryPart({ layout, settings, prerequisites, log }: PartContext): Part {
  const folder = join(layout.data, 'registry');
  const databaseFile = join(folder, 'schemas');
  const port = settings.ports.registry;
  const url = `http://${loopback}:${port}/apis/ccompat/v7`;
  let archive: ClassArchive | undefined;

  const prepare = async (): Promise<ServerCommand> => {
    const program = await ensureDownload(
      layout.downloads,
      {
        name: 'registry',
        pinFile: pom,
        announcement: 'Apicurio Registry 3.0.9 from Maven Central (104 MiB)',
        fill: fetchProgram,
      },
      log,
    );
    await mkdir(folder, { recursive: true });
    archive = classArchive('registry', layout, program, prerequisites.javaVersion);
    const args = [
      ...javaOptions,
      '-Xmx384m',
      archive.option(),
      `-Dquarkus.http.host=${loopback}`,
      `-Dquarkus.http.port=${port}`,
      '-Dquarkus.http.access-log.enabled=false',
      '-Dapicurio.storage.kind=sql',
      '-Dapicurio.storage.sql.kind=h2',
      // H2 writes behind by half a second: after a kill, an id that is already in Kafka could be given again.
      `-Dapicurio.datasource.url=jdbc:h2:file:${databaseFile};WRITE_DELAY=0`,
      '-jar',
      join(program, runner),
    ];
    return { file: prerequisites.java, args, cwd: folder };
  };

  return {
    name: 'registry',
    title: 'Apicurio Registry 3.0.9',
    mark: databaseFile,
    stopSignal: 'SIGTERM',
    stopTimeoutMs: 30_000,
    prepare,
    ready: () => listSubjects(url),
    startMayBeRetried: (text) => /Database may be already in use/.test(text),
    afterStop: async () => archive?.keep(),
    environment: () => ({ TIDEMARK_REGISTRY_URL: url }),
  };
}

async function fetchProgram(folder: string): Promise<void> {
  const remedy = 'Maven must reach Maven Central (or the mirror in its settings.xml); then start again.';
  const args = ['-q', '-B', '-f', pom, 'dependency:copy', `-DoutputDirectory=${folder}`];
  await runProgram('mvn', args, { remedy });
  const archive = (await readdir(folder)).find((name) => name.endsWith('.tar.gz'));
  if (archive === undefined) throw new Error('Maven ended without an archive');
  await runProgram('tar', ['-xzf', archive], { cwd: folder, remedy: 'Check the free disk space.' });
  await rm(join(folder, archive));
}

async function listSubjects(url: string): Promise<void> {
  const response = await fetch(`${url}/subjects`, { signal: AbortSignal.timeout(5_000) });
  if (!response.ok) throw new Error(`GET /subjects answers ${response.status}`);
  await response.json();
}
