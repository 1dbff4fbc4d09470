/** Commands where nobody answers: each part is spoken of, by its own code, and nothing is said of what is not known. */
import { appendFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { sinkKinds } from '../../connectors/sinks/registry.ts';
import { checkCommand } from '../../src/command/check.ts';
import type { CommandContext } from '../../src/command/context.ts';
import { resumeCommand } from '../../src/command/resume.ts';
import { runCommand } from '../../src/command/run.ts';
import { type StatusReport, statusCommand } from '../../src/command/status.ts';
import { createLogger } from '../../src/platform/log.ts';

let folder: string;
let written: string[];
const context = (json: boolean): CommandContext => ({
  configFile: join(folder, 'tidemark.yaml'),
  json,
  log: createLogger({ level: 'error' }),
  sinkKinds,
  stdout: (text) => void written.push(text),
  signal: new AbortController().signal,
});

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-unreachable-'));
  const nobody = 'postgres://u:p@127.0.0.1:1/d';
  await writeFile(
    join(folder, 'tidemark.yaml'),
    `source: { id: hot, url: "${nobody}", tables: [app.*] }\nkafka.brokers: [127.0.0.1:1]\nregistry.url: http://127.0.0.1:1\ncontrol.url: ${nobody}\ndeliver.instances.directory: instances\n`,
  );
  await mkdir(join(folder, 'instances'));
  await writeFile(
    join(folder, 'instances', 'replica.json'),
    JSON.stringify({
      name: 'replica',
      'connector.class': 'postgres',
      tables: 'app.*',
      'connection.url': nobody,
    }),
  );
});
afterAll(() => rm(folder, { recursive: true, force: true }));

test('check has a finding for every part', async () => {
  written = [];
  expect(await checkCommand(context(true))).toBe(1);
  const { sections } = JSON.parse(written.join(''));
  expect(sections).toMatchObject(
    ['TM201', 'TM301', 'TM304', 'TM409', 'TM401'].map((code) => ({
      findings: [{ level: 'error', what: expect.stringContaining(code), remedy: expect.any(String) }],
    })),
  );
});

test('status names what does not answer, and does not call it absent', async () => {
  written = [];
  expect(await statusCommand(context(true))).toBe(1);
  const { problems, waiting } = JSON.parse(written.join('')) as StatusReport;
  expect(problems.map(({ part, code }) => [part, code])).toEqual(
    expect.arrayContaining([
      ['source', 'TM201'],
      ['kafka', 'TM301'],
      ['control', 'TM409'],
    ]),
  );
  expect(waiting).toEqual([]);
  written = [];
  await statusCommand(context(false));
  expect(written.join('')).not.toMatch(/no slot|no Progress|no worker/);
});

test('resume waits for nobody: Kafka is away, which is no bug of ours', async () => {
  await expect(resumeCommand(context(false), { table: 'app.t' })).rejects.toMatchObject({ code: 'TM301' });
});

test('run with the role retain waits as the others do, and ends when it is told to', async () => {
  await appendFile(join(folder, 'tidemark.yaml'), 'retain.enabled: true\n');
  const stopping = new AbortController();
  const running = runCommand({ ...context(false), signal: stopping.signal }, { roles: 'retain' });
  const first = await Promise.race([running, sleep(700, 'it waits')]);
  stopping.abort();
  expect(first).toBe('it waits');
  expect(await running).toBe(0);
});
