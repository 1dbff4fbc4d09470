/** The demo as a user starts it: equal destinations, and nothing left running. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { DemoSummary } from '../../src/demo/summary.ts';
import { pythonBlocks, runLakeQuery } from '../fixtures/lake-query.ts';
import { runTidemark } from '../fixtures/tidemark-process.ts';

const controls = '\u001b[';
const root = new URL('../..', import.meta.url).pathname;
const program = join(root, 'src', 'tidemark.mjs');
let folder = '';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-demo-'));
  // When root runs the tests, Postgres is another user.
  await chmod(folder, 0o755);
});

afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** What a failed test left running must not be in the way of the next one. */
const running = new Set<ChildProcess>();
afterEach(async () => {
  for (const child of running) {
    const closed = once(child, 'close');
    child.kill('SIGINT');
    await Promise.race([closed, sleep(30_000)]);
    child.kill('SIGKILL');
  }
});

interface Demo {
  output(): string;
  errors(): string;
  signal(signal: NodeJS.Signals): void;
  exit: Promise<number | null>;
}

/** Of the history, which would be most of the work: the first case has it as users get it. */
const few = ['--findings', '5000'];

/** On a terminal (of script's making) where `terminal` is set. */
function startDemo(args: string[], terminal = false): Demo {
  const command = [process.execPath, program, 'demo', ...args];
  const [file, ...rest] = terminal
    ? ['script', '-qefc', `stty cols 100 rows 40; exec ${command.join(' ')}`, '/dev/null']
    : command;
  const child = spawn(file!, rest, { cwd: root, env: { ...process.env, TIDEMARK_DEMO_DIR: folder } });
  let output = '';
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  running.add(child);
  const exit = new Promise<number | null>((resolve) =>
    child.on('close', (code) => {
      running.delete(child);
      resolve(code);
    }),
  );
  return {
    output: () => output,
    errors: () => errors,
    signal: (signal) => {
      // What the terminal does at Ctrl+C.
      if (terminal) child.stdin.write('\u0003');
      else child.kill(signal);
    },
    exit,
  };
}

async function shows(demo: Demo, pattern: RegExp, timeoutMs = 240_000): Promise<void> {
  const giveUpAt = Date.now() + timeoutMs;
  while (!pattern.test(demo.output())) {
    if (Date.now() > giveUpAt)
      throw new Error(`${pattern} did not come:\n${demo.errors()}\n${demo.output()}`);
    await sleep(100);
  }
}

/** Processes that work in the demo's folder, and ports of its servers that still answer. */
async function leftovers(): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (command.includes(folder)) found.push(command.replaceAll('\0', ' ').slice(0, 200));
  }
  const settings = JSON.parse(await readFile(join(folder, 'stack', 'settings.json'), 'utf8'));
  for (const [name, port] of Object.entries(settings.ports as Record<string, number>))
    if (await answers(port)) found.push(`port ${port} of ${name}`);
  return found;
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: '127.0.0.1', port });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

test('demo --once verifies both destinations and leaves nothing running', async () => {
  const demo = startDemo(['--once', '--transactions', '300', '--seed', '5', '--json']);
  expect(await demo.exit, demo.errors()).toBe(0);
  const summary = JSON.parse(demo.output()) as DemoSummary;
  expect(summary.equal).toBe(true);
  expect(summary.transactions + summary.rolledBack).toBe(300);
  expect(summary.peakMemoryBytes).toBeGreaterThan(50 << 20);
  expect(summary.destinations.map(({ name }) => name).sort()).toEqual(['lake', 'replica']);
  for (const { windows, p50Ms, p99Ms, verify } of summary.destinations) {
    expect(windows).toBeGreaterThan(0);
    expect(p50Ms).toBeGreaterThan(0);
    expect(p99Ms).toBeGreaterThanOrEqual(p50Ms!);
    expect(verify!.rows).toBeGreaterThan(500);
    for (const { sourceHash, destinationHash } of verify!.tables) expect(destinationHash).toBe(sourceHash);
  }
  const { evicted, tombstone, answeredBy, recalledFrom } = summary.letGo!;
  expect(evicted).toBeGreaterThan(1);
  expect(tombstone).toMatchObject({ deliveredTo: ['lake', 'replica'] });
  expect(tombstone.contentHash).toMatch(/^[0-9a-f]{64}$/);
  expect(answeredBy).toEqual(['lake', 'replica']);
  expect(answeredBy).toContain(recalledFrom);
  expect(await leftovers()).toEqual([]);
});

test('demo --destination takes the other kinds that run on this machine', async () => {
  const kinds = ['--destination', 'parquet,jsonl,clickhouse,kafka,webhook'];
  const demo = startDemo(['--once', '--transactions', '200', '--seed', '6', '--json', ...few, ...kinds]);
  expect(await demo.exit, demo.errors()).toBe(0);
  const summary = JSON.parse(demo.output()) as DemoSummary;
  const verified = summary.destinations.map(({ name, verify }) => [name, verify?.equal ?? null]);
  expect(Object.fromEntries(verified)).toEqual({
    archive: true,
    columns: true,
    files: true,
    mirror: null,
    siem: null,
  });
  expect(summary.letGo!.answeredBy).toEqual(['archive', 'columns', 'files']);
  const posted = await readFile(join(folder, 'siem.ndjson'), 'utf8');
  expect(posted.split('\n').length).toBeGreaterThan(100);
  expect(await leftovers()).toEqual([]);
});

test('the live demo starts over an earlier one, others may look at it as the README says, Ctrl+C ends everything', async () => {
  const demo = startDemo(['--rate', '30', ...few]);
  await shows(demo, /replica [\d.]+ s behind.*lake [\d.]+ s behind/);
  const config = ['--config', join(folder, 'tidemark.yaml')];
  const status = await runTidemark(['status', '--json', ...config], {}, 120_000);
  expect(status.code, status.stdout + status.stderr).toBe(0);
  const verify = await runTidemark(['verify', 'lake', ...config], {}, 300_000);
  expect(verify.code, verify.stdout + verify.stderr).toBe(0);
  const second = startDemo([]);
  expect(await second.exit).toBe(3);
  expect(second.errors()).toContain('another demo runs');
  // A finding that is critical comes along sooner or later.
  for (const block of await pythonBlocks(join(root, 'README.md')))
    await expect
      .poll(() => runLakeQuery(block, folder), { timeout: 120_000, interval: 1000, message: block })
      .toMatch(/critical/);
  demo.signal('SIGINT');
  expect(await demo.exit, demo.errors()).toBe(0);
  expect(demo.output()).toContain('tidemark verify replica');
  expect(demo.errors()).toMatch(/lake received [\d,]+ changes in [\d,]+ Windows/);
  expect(await leftovers()).toEqual([]);
});

test('on a terminal the view redraws in place, and Ctrl+C gives the terminal back', async () => {
  const demo = startDemo(['--rate', '30', ...few], true);
  await shows(demo, /Tidemark demo.*┌─.*replica: Postgres.*[\d.]+ s behind/s);
  await shows(demo, /last Receipt[^┌]*replica[^┌]*rows to [0-9A-F]+\/[0-9A-F]+/);
  demo.signal('SIGINT');
  expect(await demo.exit).toBe(0);
  const output = demo.output();
  expect(output).toContain(`${controls}H`);
  expect(output.slice(output.lastIndexOf(`${controls}?1049l`))).toContain('nothing is left running');
  expect(output.lastIndexOf(`${controls}?25h`)).toBeGreaterThan(output.lastIndexOf(`${controls}?25l`));
  expect(await leftovers()).toEqual([]);
});

test('a server that dies ends the demo with what happened, and nothing is left running', async () => {
  const demo = startDemo(['--rate', '10', ...few]);
  await shows(demo, /replica [\d.]+ s behind/);
  const record = JSON.parse(await readFile(join(folder, 'stack', 'run', 'registry.json'), 'utf8'));
  process.kill(record.pid, 'SIGKILL');
  expect(await demo.exit).toBe(3);
  expect(demo.errors()).toMatch(/TM304: .*Registry.* died \(SIGKILL\)/);
  expect(demo.errors()).toContain('→ Look into');
  expect(await leftovers()).toEqual([]);
});

test('Ctrl+C while the servers start ends them too', async () => {
  const demo = startDemo(['--once']);
  while (!/creating the Postgres data folder/.test(demo.errors())) await sleep(20);
  demo.signal('SIGINT');
  expect(await demo.exit, demo.errors()).toBe(130);
  expect(await leftovers()).toEqual([]);
});

test('a missing program is named with the line that installs it', async () => {
  const path = process.env.PATH;
  try {
    process.env.PATH = '/nowhere';
    const demo = startDemo(['--once']);
    expect(await demo.exit).toBe(2);
    expect(demo.errors()).toMatch(/TM103: Java 17 or newer is not installed.*\n {2}→ \S+ install/);
  } finally {
    process.env.PATH = path;
  }
});
