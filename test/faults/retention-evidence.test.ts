/**
 * Evidence: a signed report of what was let go of, checked against destinations by a process that has neither Tidemark's
 * databases nor the source; and every way of forging it.
 */
import { execFileSync } from 'node:child_process';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { EvidenceVerdict } from '../../src/retain/evidence/check.ts';
import type { EvidenceRow } from '../../src/retain/evidence/format.ts';
import { FaultStack, Pipeline, until } from '../fixtures/pipeline.ts';
import { addPolicy, createNotes, retainOnce } from '../fixtures/retention.ts';
import { freePort } from '../fixtures/source-server.ts';
import { runTidemark } from '../fixtures/tidemark-process.ts';

let faults: FaultStack;
let pipeline: Pipeline;
let directory: string;
let report: string;

beforeAll(async () => {
  faults = await FaultStack.start('retention-evidence');
  pipeline = await Pipeline.create(faults.stack, 'evidence', {
    tables: 'app.notes, app.comments',
    config: {
      'retain.enabled': 'true',
      'retain.tenants.table': 'app.tenants',
      'retain.interval': '500ms',
      'retain.evidence.key': '$' + '{file:evidence.key}',
    },
  });
  directory = pipeline.directory;
  for (const name of ['evidence', 'other']) {
    const file = join(directory, name);
    execFileSync('openssl', ['genpkey', '-algorithm', 'ed25519', '-out', `${file}.key`]);
    execFileSync('openssl', ['pkey', '-in', `${file}.key`, '-pubout', '-out', `${file}.pub`]);
  }
  await createNotes(pipeline);
  // A tenant and a key that no page should take for more than text.
  await pipeline.source.query(
    `create table app.tagged (organization_id int, tag text, created_at timestamptz, primary key (organization_id, tag))`,
  );
  const reader = pipeline.replicate();
  pipeline.deliver();
  await pipeline.streaming(reader);
  for (const destination of pipeline.destinations) await pipeline.verify(destination);
  await addPolicy(pipeline);
  expect(await retainOnce(pipeline)).toMatchObject({ ok: true, tables: [{ evicted: 9 }] });
  for (const destination of pipeline.destinations) await pipeline.verify(destination);
  report = await written('--organization', '1');
});
afterAll(async () => {
  await pipeline?.end();
  await faults?.stop();
});

const day = (days: number) => new Date(Date.now() + days * 86_400_000).toISOString().slice(0, 10);

/** `retain evidence`. @returns the file of lines */
async function written(...args: string[]): Promise<string> {
  const range = ['--from', day(-1), '--to', day(2)];
  const { code, stdout, stderr } = await pipeline.command([
    'retain',
    'evidence',
    ...range,
    '--out',
    directory,
    '--json',
    ...args,
  ]);
  expect(code, stdout + stderr).toBe(0);
  return (JSON.parse(stdout) as { file: string }).file;
}

/** `retain check-evidence`, as somebody else: no tidemark.yaml, no source, no control database. */
async function checked(
  file: string,
  ...args: string[]
): Promise<{ code: unknown; verdict: EvidenceVerdict }> {
  const key = args.includes('--public-key') ? [] : ['--public-key', join(directory, 'evidence.pub')];
  const { REPLICA_URL } = pipeline.environment;
  const { code, stdout, stderr } = await runTidemark(
    ['retain', 'check-evidence', file, '--json', ...key, ...args],
    { REPLICA_URL: REPLICA_URL! },
    60_000,
  );
  if (code !== 0 && code !== 1) throw new Error(`check-evidence ended with ${code}: ${stdout}${stderr}`);
  return { code, verdict: JSON.parse(stdout) as EvidenceVerdict };
}

const instance = (name: string) => join(directory, 'instances', `${name}.json`);

function lines(file: string): string[] {
  return readFileSync(file, 'utf8').trimEnd().split('\n');
}

function altered(name: string, change: (lines: string[]) => string[]): string {
  const file = join(directory, `${name}.ndjson`);
  writeFileSync(file, `${change(lines(report)).join('\n')}\n`);
  return file;
}

test('a report has every row that went, and any destination proves it, by a sample or whole', async () => {
  const [head, ...rest] = lines(report).map((line) => JSON.parse(line));
  expect(head).toMatchObject({ kind: 'head', organization: '1', canonicalForm: 'tidemark-row-v1' });
  expect(head.policies).toMatchObject([{ table: 'app.notes', policy: { age_column: 'created_at' } }]);
  const rows = rest.filter(({ kind }) => kind === 'row') as EvidenceRow[];
  expect(rows.map(({ key }) => key).sort()).toEqual(
    [1451, 1452, 1453, 2001, 2002, 2003].map((id) => `["1","${id}"]`),
  );
  for (const row of rows) {
    expect(row).toMatchObject({ tenant: '1', recalledAt: null, superseded: false, hashVersion: 1 });
    expect(row.deliveredTo.map(({ destination }) => destination).sort()).toEqual(
      [...pipeline.destinations].sort(),
    );
    expect(row.deliveredTo.every(({ receipt }) => receipt?.commitId)).toBe(true);
  }
  expect(rest.at(-2)).toMatchObject({ kind: 'sum', rows: 6, byTable: { 'app.notes': 6 } });
  expect((await checked(report)).verdict).toMatchObject({ ok: true, rows: 6, destination: null });
  for (const destination of pipeline.destinations)
    for (const how of [['--all'], ['--sample', '2']]) {
      const { code, verdict } = await checked(report, '--destination', instance(destination), ...how);
      const compared = how.length === 1 ? 6 : 2;
      expect(verdict.destination, JSON.stringify(verdict)).toMatchObject({
        compared,
        matching: compared,
        behind: [],
      });
      expect(code).toBe(0);
    }
});

test('a line that is changed, added, removed or moved, another key, and another report’s signature are all noticed', async () => {
  const all = await written();
  const forgeries: [string, string, string][] = [
    [
      'changed',
      altered('changed', (text) => text.map((line) => line.replace('"tenant":"1"', '"tenant":"4"'))),
      'digest',
    ],
    ['removed', altered('removed', (text) => text.toSpliced(2, 1)), 'digest'],
    ['added', altered('added', (text) => text.toSpliced(2, 0, text[2]!)), 'digest'],
    ['moved', altered('moved', (text) => [text[0]!, text[2]!, text[1]!, ...text.slice(3)]), 'digest'],
    ['cut off', altered('cut', (text) => text.slice(0, -1)), 'cut off'],
    [
      'head',
      altered('head', (text) => [text[0]!.replace('"source":"', '"source":"x'), ...text.slice(1)]),
      'digest',
    ],
    ['sum', altered('sum', (text) => text.map((line) => line.replace('"rows":6', '"rows":5'))), 'signature'],
    ['signature', altered('signature', (text) => [...text.slice(0, -1), lines(all).at(-1)!]), 'signature'],
    ['after', altered('after', (text) => [...text, text[1]!]), 'after the signature'],
    ['no report', instance('replica'), 'no line'],
  ];
  for (const [what, file, says] of forgeries) {
    const { code, verdict } = await checked(file, '--destination', instance('replica'));
    expect(code, what).toBe(1);
    expect(verdict.problems.join('; '), what).toContain(says);
    expect(verdict.destination, what).toBeNull();
  }
  const wrong = await checked(report, '--public-key', join(directory, 'other.pub'));
  expect(wrong.verdict.problems.join()).toContain('signed by key');
  // Signed anew by somebody else, who says that he is the one.
  const other = await runTidemark(
    [
      'retain',
      'evidence',
      '--from',
      day(-1),
      '--to',
      day(2),
      '--organization',
      '4',
      '--out',
      directory,
      '--json',
      '--config',
      pipeline.configFile,
    ],
    { ...pipeline.environment },
    60_000,
  );
  expect(other.code).toBe(0);
  const name = (JSON.parse(other.stdout) as { file: string }).file;
  const forged = lines(name);
  const seal = JSON.parse(forged.at(-1)!);
  const claimed = { ...seal, signature: Buffer.alloc(64, 7).toString('base64') };
  writeFileSync(name, `${[...forged.slice(0, -1), JSON.stringify(claimed)].join('\n')}\n`);
  expect((await checked(name)).verdict.problems.join()).toContain('signature');
});

test('a row that is changed or missing at a destination is named; what was recalled or lost its salt is not compared', async () => {
  const { source, replica } = pipeline;
  await replica.query(
    `update app.notes set body = 'altered by hand' where id = 1451; delete from app.notes where id = 2001 and organization_id = 1`,
  );
  const { code, verdict } = await checked(report, '--destination', instance('replica'), '--all');
  expect(code).toBe(1);
  expect(verdict.problems).toEqual([]);
  expect(verdict.destination).toMatchObject({ compared: 6, matching: 4, differingRows: 2 });
  expect(verdict.destination!.differing.map(({ key, reason }) => `${key} ${reason}`).sort()).toEqual([
    '["1","1451"] the destination has it otherwise',
    '["1","2001"] the destination does not have it',
  ]);
  expect((await checked(report, '--destination', instance('lake'), '--all')).code).toBe(0);

  const recall = await pipeline.command([
    'retain',
    'recall',
    'app.notes',
    '["1","1452"]',
    '--reason',
    'audit',
    '--json',
  ]);
  expect(recall.code, recall.stdout).toBe(0);
  await source.query(
    `update tidemark_retention.cold_storage_archive set salt = null, salt_erased_at = now() where row_key = '["1","1453"]'`,
  );
  const later = await written('--organization', '1');
  const again = await checked(later, '--destination', instance('lake'), '--all');
  expect(again.verdict.destination).toMatchObject({
    compared: 4,
    matching: 4,
    passedOver: { recalled: 1, 'salt erased': 1 },
  });
  expect(again.code).toBe(0);
});

test('metrics tell what waits, what went, why rows stay, what came back, and what is wrong', async () => {
  const { source } = pipeline;
  const port = await freePort();
  appendFileSync(pipeline.configFile, `observe.metrics.port: ${port}\n`);
  await source.query(
    `insert into app.comments values (4, 1, 4451); update app.tenants set data_retention_days = 30 where id = 4`,
  );
  const retain = pipeline.retain();
  const metric = async (name: string, ...labels: string[]) => {
    const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    const line = text
      .split('\n')
      .find(
        (each) =>
          each.startsWith(`tidemark_retention_${name}{`) && labels.every((label) => each.includes(label)),
      );
    return line === undefined ? null : Number(line.slice(line.lastIndexOf(' ') + 1));
  };
  await until('two rows went', 60_000, async () => (await metric('evicted_rows_total', 'app.notes')) === 2);
  expect(await metric('recalled_rows', 'app.notes')).toBe(1);
  await until('one stays', 30_000, async () => (await metric('staying_rows', 'referred to')) === 1);
  expect(await metric('alarms')).toBeNull();
  expect(Date.now() / 1000 - (await metric('round_timestamp_seconds'))!).toBeLessThan(60);
  await pipeline.command(['destination', 'pause', 'lake', '--reason', 'test']);
  await source.query(
    `insert into app.notes (organization_id, id, created_at) values (1, 9, now() - interval '90 days')`,
  );
  await until('it waits', 30_000, async () => (await metric('marked_rows', 'app.notes'))! > 0);
  // Not in the round that marks the row: Progress has to come behind it first.
  await until('a Floor', 30_000, async () => (await metric('floor_timestamp_seconds')) !== null);
  expect(Date.now() / 1000 - (await metric('floor_timestamp_seconds'))!).toBeLessThan(600);
  await pipeline.command(['destination', 'resume', 'lake']);
  await addPolicy(pipeline, { age_column: `'nowhere'` });
  await until('the alarm', 30_000, async () => (await metric('alarms', 'TM503')) === 1);
  await addPolicy(pipeline);
  await retain.stop();
});

test('the page loads nothing and takes nothing for markup', async () => {
  await pipeline.source.query(`insert into tidemark_retention.cold_storage_archive
    (table_schema, table_name, row_key, tenant, position, delivered_to, content_hash, hash_version, hashed_columns, salt, policy_version)
    select 'app', 'tagged', '["9","</td><script>alert(1)</script>' || chr(8238) || '&"]', '<b>9</b>', '', '[]', sha256('x'), 1, '{tag}', sha256('y'), 1`);
  const file = await written('--organization', '<b>9</b>');
  const page = readFileSync(file.replace(/ndjson$/, 'html'), 'utf8');
  expect(page).toContain('&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;\\u202e&amp;');
  expect(page).not.toMatch(/<script|<b>9|src=|href=|url\(|@import|\u202e/);
  expect(page).toContain(`default-src 'none'`);
});

test('a report of 100,000 rows is written and checked with a heap that could not hold them', async () => {
  await pipeline.source.query(`insert into tidemark_retention.cold_storage_archive
    (table_schema, table_name, row_key, tenant, position, delivered_to, content_hash, hash_version, hashed_columns, salt, policy_version)
    select 'app', 'many', '["7","' || n || '"]', '7', '', jsonb_build_array(jsonb_build_object('destination', 'lake', 'unit', 'app.many', 'mark', repeat('f', 40),
      'receipt', jsonb_build_object('sequence', 1, 'position', '', 'commitId', repeat('c', 200), 'contentHash', repeat('d', 32)))),
      sha256('x'), 1, '{a,b,c}', sha256('y'), 1 from generate_series(1, 100000) n`);
  const small = { ...pipeline.environment, NODE_OPTIONS: '--max-old-space-size=64' };
  const range = ['--from', day(-1), '--to', day(2), '--organization', '7', '--out', directory];
  const made = await runTidemark(
    ['retain', 'evidence', ...range, '--json', '--config', pipeline.configFile],
    small,
    60_000,
  );
  expect(made.code, made.stderr).toBe(0);
  const { file } = JSON.parse(made.stdout) as { file: string };
  const pub = join(directory, 'evidence.pub');
  const read = await runTidemark(
    ['retain', 'check-evidence', file, '--public-key', pub, '--json'],
    small,
    60_000,
  );
  expect(JSON.parse(read.stdout)).toMatchObject({ ok: true, rows: 100_000 });
});
