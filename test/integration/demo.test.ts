/** The demo as a user starts it: equal destinations, and nothing left running. */
import { spawn } from 'node:child_process';
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { DemoSummary } from '../../src/demo/once.ts';

const root = new URL('../..', import.meta.url).pathname;
let folder = '';

beforeAll(async () => {
  // Not in the system's temp folder: the user Postgres runs as must be able to enter it.
  folder = join(root, '.tidemark', 'test-stacks', `demo-${process.pid}`);
  await mkdir(folder, { recursive: true });
});

afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

function startDemo(args: string[]) {
  const child = spawn(process.execPath, [join(root, 'src/tidemark.mjs'), 'demo', ...args], {
    cwd: root,
    env: { ...process.env, TIDEMARK_DEMO_DIR: folder },
  });
  let output = '';
  let errors = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString();
  });
  const exit = new Promise<number | null>((resolve) => child.on('exit', (code) => resolve(code)));
  return { child, exit, output: () => output, errors: () => errors };
}

/** Command lines of the processes that work in the demo's folder. */
async function leftovers(): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (command.includes(folder)) found.push(command.replaceAll('\0', ' ').slice(0, 200));
  }
  return found;
}

test('demo --once verifies both destinations and leaves nothing running', async () => {
  const demo = startDemo(['--once', '--transactions', '300', '--seed', '5', '--json']);
  expect(await demo.exit, demo.errors()).toBe(0);
  const summary = JSON.parse(demo.output()) as DemoSummary;
  expect(summary.equal).toBe(true);
  expect(summary.destinations.map(({ name }) => name).sort()).toEqual(['lake', 'replica']);
  for (const destination of summary.destinations) {
    expect(destination.windows).toBeGreaterThan(0);
    expect(destination.rows).toBeGreaterThan(500);
    expect(destination.p99Ms).toBeGreaterThan(0);
  }
  expect(await leftovers()).toEqual([]);
});

test('the live demo starts over an earlier one, shows every stage, and Ctrl+C ends everything', async () => {
  const demo = startDemo(['--rate', '30']);
  const giveUpAt = Date.now() + 90_000;
  while (!/replica \d/.test(demo.output()) && Date.now() < giveUpAt) await sleep(200);
  await sleep(4000);
  demo.child.kill('SIGINT');
  expect(await demo.exit, demo.errors()).toBe(0);
  expect(demo.output()).toMatch(/replica [\d.]+ s behind, \d+ Windows/);
  expect(demo.output()).toContain('tidemark verify replica');
  expect(await leftovers()).toEqual([]);
});
