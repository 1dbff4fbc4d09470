/**
 * Before the first test: every server is downloaded, started and stopped once, so that test files that run beside each
 * other find the downloads complete. A server that cannot start fails the run here, with its remedy. What all files share
 * is served from here.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import type { TestProject } from 'vitest/node';
import { partNames } from '../compose/layout.ts';
import { startStack } from '../compose/local-stack.ts';
import { type SharedReaders, serveReaders } from './iceberg/shared-readers.ts';

const directory = new URL('../.tidemark/test-stacks/warm-up', import.meta.url).pathname;

/** Each project that needs servers asks for it, in one process and one after the other. */
const warm = Symbol.for('tidemark: warmed up');

export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const shared = globalThis as { [warm]?: SharedReaders };
  shared[warm] ??= await warmUp();
  const readers = shared[warm];
  project.provide('icebergReaders', readers.url);
  return () => readers.stop();
}

async function warmUp(): Promise<SharedReaders> {
  const stack = await startStack({ directory, parts: partNames, log });
  await stack.stop();
  await rm(directory, { recursive: true, force: true });
  return serveReaders(await mkdtemp(`${directory}-readers-`), log);
}

function log(line: string): void {
  process.stderr.write(`warm-up: ${line}\n`);
}
