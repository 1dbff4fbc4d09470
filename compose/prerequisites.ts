/** What must be on the machine before a local stack can start. */
import { spawnSync } from 'node:child_process';
import { TidemarkError } from '../src/platform/errors.ts';
import type { PartName } from './layout.ts';
import { findProgram } from './program.ts';

interface Prerequisite {
  title: string;
  /** Who needs it. */
  reason: string;
  debian: string;
  macos: string;
}

const node: Prerequisite = {
  title: 'Node 24 or newer',
  reason: 'the stack is written in TypeScript that Node runs directly',
  debian: 'npm ci',
  macos: 'npm ci',
};
const java: Prerequisite = {
  title: 'Java 17 or newer',
  reason: 'Kafka, the Schema Registry and the Iceberg catalog run on it',
  debian: 'apt-get install -y openjdk-17-jre-headless',
  macos: 'brew install openjdk@17 && export PATH="$(brew --prefix openjdk@17)/bin:$PATH"',
};
const maven: Prerequisite = {
  title: 'Maven',
  reason: 'it fetches Kafka, the Schema Registry and the Iceberg catalog',
  debian: 'apt-get install -y maven',
  macos: 'brew install maven',
};
const python: Prerequisite = {
  title: 'Python 3.9 or newer with venv',
  reason: 'the object store and ClickHouse come from PyPI (--with s3, --with clickhouse)',
  debian: 'apt-get install -y python3 python3-venv',
  macos: 'brew install python',
};

/** What the check found and the parts need. */
export interface Prerequisites {
  java: string;
  /** The whole answer of `java -version`: a class archive fits only the Java that wrote it. */
  javaVersion: string;
}

/**
 * Looks for the programs that these parts need.
 * @throws TidemarkError TM103 for the first one that is missing or too old; the remedy is its install line.
 */
export function checkPrerequisites(
  parts: readonly PartName[],
  environment: { path: string; nodeVersion: string } = {
    path: process.env.PATH ?? '',
    nodeVersion: process.versions.node,
  },
): Prerequisites {
  if (Number.parseInt(environment.nodeVersion, 10) < 24) throw missing(node, environment.nodeVersion);
  const found: Prerequisites = { java: '', javaVersion: '' };
  if (parts.includes('kafka') || parts.includes('registry') || parts.includes('iceberg')) {
    found.java = findProgram('java', environment.path) ?? '';
    if (found.java === '') throw missing(java);
    found.javaVersion = answer(found.java, ['-version']);
    const release = /version "(\d+)/.exec(found.javaVersion)?.[1];
    if (release === undefined || Number(release) < 17) throw missing(java, release);
    if (findProgram('mvn', environment.path) === undefined) throw missing(maven);
  }
  if (parts.includes('s3') || parts.includes('clickhouse')) {
    const program = findProgram('python3', environment.path);
    if (program === undefined) throw missing(python);
    const version = answer(program, [
      '-c',
      'import sys, venv, ensurepip; print("%d.%d" % sys.version_info[:2])',
    ]);
    const [major, minor] = /^(\d+)\.(\d+)$/m.exec(version)?.slice(1).map(Number) ?? [];
    if (major !== 3 || (minor ?? 0) < 9) throw missing(python, major === undefined ? undefined : version);
  }
  return found;
}

/** What a program says when asked for its version, on either stream: Java answers on the error stream. */
function answer(program: string, args: string[]): string {
  const result = spawnSync(program, args, { encoding: 'utf8' });
  return `${result.stdout ?? ''}${result.stderr ?? ''}`.trim();
}

function missing(needed: Prerequisite, found?: string): TidemarkError {
  const state = found === undefined ? 'is not installed' : `is needed, found ${found}`;
  const line = process.platform === 'darwin' ? needed.macos : needed.debian;
  const other = process.platform === 'darwin' ? `Debian: ${needed.debian}` : `macOS: ${needed.macos}`;
  const remedy = needed.debian === needed.macos ? line : `${line}    (${other})`;
  return new TidemarkError('TM103', `${needed.title} ${state}: ${needed.reason}.`, { remedy });
}
