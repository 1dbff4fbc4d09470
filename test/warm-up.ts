/**
 * Before the first test: every server is downloaded, started and stopped once, so that test files that run beside each
 * other find the downloads complete. A server that cannot start fails the run here, with its remedy.
 */
import { rm } from 'node:fs/promises';
import { partNames } from '../compose/layout.ts';
import { startStack } from '../compose/local-stack.ts';

const directory = new URL('../.tidemark/test-stacks/warm-up', import.meta.url).pathname;

export async function setup(): Promise<void> {
  const stack = await startStack({
    directory,
    parts: partNames,
    log: (line) => void process.stderr.write(`warm-up: ${line}\n`),
  });
  await stack.stop();
  await rm(directory, { recursive: true, force: true });
}
