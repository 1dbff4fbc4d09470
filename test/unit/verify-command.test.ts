/** The verify command's options, and what its report looks like on a terminal. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { CommandContext } from '../../src/command/context.ts';
import { verifyCommand } from '../../src/command/verify.ts';
import { formatPosition } from '../../src/connector/position.ts';
import { createLogger } from '../../src/platform/log.ts';
import type { TableReport, VerifyReport } from '../../src/verify/report.ts';
import { renderReport } from '../../src/verify/report-text.ts';

const context = (configFile: string): CommandContext => ({
  configFile,
  json: false,
  log: createLogger({ level: 'error' }),
  sinkKinds: new Map(),
  stdout: () => {},
  signal: new AbortController().signal,
});

test.each([
  [{ limit: '-1' }, '--limit'],
  [{ limit: 'many' }, '--limit'],
  [{ timeout: '120' }, '--timeout'],
  [{ timeout: '0s' }, '--timeout'],
])('%o is refused before anything is read', async (args, option) => {
  const refused = verifyCommand(context('no-such-file.yaml'), { destination: 'replica', ...args });
  await expect(refused).rejects.toMatchObject({ code: 'TM101', message: expect.stringContaining(option) });
});

test('an unknown destination, or none where it is not clear which, is refused with the names there are', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'tidemark-verify-'));
  try {
    const file = join(directory, 'tidemark.yaml');
    await writeFile(
      file,
      `source:\n  id: hot\n  url: postgres://u:p@127.0.0.1:1/d\n  tables: [app.*]\nkafka:\n  brokers: [127.0.0.1:1]\nregistry:\n  url: http://127.0.0.1:1\ncontrol:\n  url: postgres://u:p@127.0.0.1:1/d\ndeliver:\n  instances:\n    directory: .\n`,
    );
    const refused = (destination?: string) => verifyCommand(context(file), { destination });
    await expect(refused('nowhere')).rejects.toMatchObject({
      code: 'TM101',
      message: 'destination nowhere is not one of (none)',
    });
    await expect(refused()).rejects.toMatchObject({
      code: 'TM101',
      message: 'verify needs a destination: one of (none)',
    });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});

const position = formatPosition({ epoch: 1, lsn: 16n, ordinal: 0 });
const equal: TableReport = {
  table: 'app.users',
  status: 'equal',
  sourceRows: 12_345,
  destinationRows: 12_345,
  sourceHash: 'aabbccdd00112233aabbccdd00112233',
  destinationHash: 'aabbccdd00112233aabbccdd00112233',
  missing: 0,
  extra: 0,
  different: 0,
  countsExact: true,
  keys: [],
  quarantined: 0,
  evicted: 0,
  hint: null,
  durationMs: 1,
};

const reportOf = (tables: TableReport[]): VerifyReport => ({
  sourceId: 'hot',
  destination: 'replica',
  position,
  equal: tables.every(({ status }) => status === 'equal'),
  tables,
  durations: { snapshotMs: 100, deliverMs: 200, compareMs: 700, totalMs: 1000 },
});

test('an equal destination is a line per table and the Position', () => {
  expect(
    renderReport(reportOf([equal, { ...equal, table: 'app.t', sourceRows: 0, destinationRows: 0 }])),
  ).toBe(
    `✓ app.users  12,345  12,345  aabbccdd\n✓ app.t           0       0  aabbccdd\n
replica equals source hot at ${position}\n1.0 s: waited 0.3 s, compared 0.7 s\n`,
  );
});

test('differences are counted, named and explained; a value cannot steer the terminal', () => {
  const key = (value: string) => ({ kind: 'missing' as const, key: { id: value }, columns: [], count: 1 });
  const text = renderReport(
    reportOf([
      {
        ...equal,
        status: 'different',
        destinationHash: 'ffff',
        missing: 9,
        countsExact: false,
        keys: [key('7'), key('\u001b[2Jx\u202e'), key(''), { ...key('é'), kind: 'extra', count: 3 }],
        hint: 'do this',
      },
    ]),
  );
  expect(text).toContain('✗ app.users  12,345  12,345  aabbccdd ≠ ffff  at least 9 missing\n');
  expect(text).toContain('    missing    id=7\n');
  expect(text).toContain('    missing    id=""\n');
  expect(text).toContain('    extra      id=é (3 times)\n    … and 3 more (--limit)\n    → do this\n');
  expect(text).toContain('differs from source hot in 1 of 1 tables');
  expect(text.replaceAll('\n', '')).not.toMatch(/\p{C}/u);
});
