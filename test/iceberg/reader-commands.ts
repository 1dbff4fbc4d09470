/** How each reader's program is fetched and started. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { javaOptions } from '../../compose/class-archive.ts';
import { ensureDownload } from '../../compose/download.ts';
import { compileJava } from '../../compose/iceberg.ts';
import { stackLayout } from '../../compose/layout.ts';
import { checkPrerequisites } from '../../compose/prerequisites.ts';
import { runProgram } from '../../compose/program.ts';
import { ensurePyiceberg, ensurePythonModules } from './pyiceberg.ts';
import type { ReaderName } from './reader.ts';
import type { ReaderCommand } from './reader-process.ts';

const here = import.meta.dirname;
const sparkPom = join(here, 'spark', 'pom.xml');
const sparkReader = join(here, 'spark', 'SparkReader.java');

/** @param folder for logs and temporary files */
export async function readerCommand(
  name: ReaderName,
  folder: string,
  log: (line: string) => void,
): Promise<ReaderCommand> {
  await mkdir(folder, { recursive: true });
  const logFile = join(folder, `${name}.log`);
  const own = name === 'spark' ? await sparkCommand(folder, log) : await pythonCommand(name, log);
  return { cwd: folder, logFile, ...own };
}

async function pythonCommand(name: 'pyiceberg' | 'duckdb', log: (line: string) => void) {
  // DuckDB hands its rows over as Arrow, which pyiceberg brings.
  const modules = [await ensurePyiceberg(log)];
  if (name === 'duckdb') {
    modules.push(await ensureDuckdbModules(log));
  }
  return {
    file: 'python3',
    args: [join(here, 'python-reader.py'), name],
    env: { ...process.env, PYTHONPATH: modules.join(':'), PYTHONDONTWRITEBYTECODE: '1' },
  };
}

/** The folder to put on PYTHONPATH. */
export function ensureDuckdbModules(log: (line: string) => void): Promise<string> {
  const requirements = join(here, 'duckdb', 'requirements.txt');
  const announcement = 'DuckDB 1.5 with its Iceberg extensions from PyPI (50 MiB)';
  return ensurePythonModules('duckdb-iceberg', requirements, announcement, log);
}

async function sparkCommand(folder: string, log: (line: string) => void) {
  const { java } = checkPrerequisites(['iceberg']);
  const program = await ensureDownload(
    stackLayout().downloads,
    {
      name: 'spark',
      pinFile: sparkPom,
      furtherFiles: [sparkReader],
      announcement: 'Spark 4.0 with Iceberg’s runtime from Maven Central (260 MiB)',
      fill: (target) => fetchSpark(target, java),
    },
    log,
  );
  return {
    file: java,
    args: [
      ...javaOptions,
      '-Xmx1536m',
      ...openedPackages.map((name) => `--add-opens=java.base/${name}=ALL-UNNAMED`),
      `-Djava.io.tmpdir=${folder}`,
      '-cp',
      `${join(program, 'classes')}:${join(program, '*')}`,
      'SparkReader',
    ],
    env: { ...process.env, SPARK_LOCAL_IP: '127.0.0.1' },
  };
}

async function fetchSpark(folder: string, java: string): Promise<void> {
  const remedy = 'Maven must reach Maven Central (or the mirror in its settings.xml); then start again.';
  const include = ['-DincludeScope=runtime', `-DoutputDirectory=${folder}`];
  await runProgram('mvn', ['-q', '-B', '-f', sparkPom, 'dependency:copy-dependencies', ...include], {
    remedy,
  });
  await compileJava(java, folder, sparkReader);
}

/** What Spark reaches into; its own launcher says the same. */
const openedPackages = [
  'java.lang',
  'java.lang.invoke',
  'java.lang.reflect',
  'java.io',
  'java.net',
  'java.nio',
  'java.util',
  'java.util.concurrent',
  'java.util.concurrent.atomic',
  'sun.nio.ch',
  'sun.nio.cs',
  'sun.security.action',
  'sun.util.calendar',
];
