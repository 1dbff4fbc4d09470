/** `on.incompatible.change: text`, into both destinations. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FaultStack, type Pipeline } from '../fixtures/pipeline.ts';
import { checkStream } from '../fixtures/stream-checker.ts';
import type { TidemarkProcess } from '../fixtures/tidemark-process.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('carried-as-text');
});
afterAll(async () => {
  await faults?.stop();
});

const config = {
  'kafka.topic.partitions': '2',
  'source.publication.interval': '500ms',
  'source.tables': '[{pattern: app.*, on.incompatible.change: text}]',
};

async function started(pipeline: Pipeline): Promise<{ reader: TidemarkProcess; delivery: TidemarkProcess }> {
  const reader = pipeline.replicate();
  const delivery = pipeline.deliver();
  await pipeline.streaming(reader);
  return { reader, delivery };
}

/** Statements one by one; after each the reader has published it. */
async function run(pipeline: Pipeline, statements: readonly string[]): Promise<void> {
  for (const statement of statements) {
    await pipeline.source.query(statement);
    await pipeline.published();
  }
}

interface RegistrySchema {
  fields: { name: string; type: unknown[] }[];
  tidemark: { version: number; major: number; columns: { name: string; type: string; form?: string }[] };
}

async function schemas(pipeline: Pipeline, table: string): Promise<RegistrySchema[]> {
  const base = `${pipeline.stack.environment.TIDEMARK_REGISTRY_URL}/subjects/${pipeline.prefix}.${table}-value`;
  const numbers = (await (await fetch(`${base}/versions`)).json()) as number[];
  const texts = await Promise.all(
    numbers.map(async (n) => (await (await fetch(`${base}/versions/${n}`)).json()) as { schema: string }),
  );
  return texts.map(({ schema }) => JSON.parse(schema) as RegistrySchema);
}

function rowFields({ fields }: RegistrySchema): Record<string, unknown> {
  const [, value] = fields.find(({ name }) => name === 'before')!.type as [string, { fields: [] }];
  const list = value.fields as { name: string; type: unknown[] | string }[];
  return Object.fromEntries(list.map(({ name, type }) => [name, Array.isArray(type) ? type[1] : type]));
}

/** From, to, how, and values before it and after it. Existing rows are cast alike everywhere. */
const changes: [string, string, string[], string[]][] = [
  ['integer', 'text', ['5', '-7'], ['seven', '']],
  ['text', 'integer', ['007', '12'], ['2147483647', '-1']],
  ['integer', 'boolean', ['5', '0'], ['true', 'f']],
  ['boolean', 'text', ['t', 'f'], ['maybe', 't']],
  ['numeric(8,2)', 'integer', ['1.50', '-2.50', '3.49'], ['4', '-9']],
  ['integer', 'numeric(12,2)', ['5', '2147483647'], ['0.01', 'NaN']],
  ['text', 'timestamp with time zone', ['2024-02-29 12:00+02', '1999-12-31'], ['infinity', '0044-03-15 BC']],
  ['timestamp without time zone', 'date', ['2024-02-29 23:59:59.999'], ['infinity', '2024-03-01']],
  ['date', 'timestamp without time zone', ['2024-02-29'], ['2024-02-29 00:00:00.000001']],
  ['bigint', 'double precision', ['5', '9007199254740991'], ['0.1', 'NaN']],
  ['text', 'jsonb', ['{"b":1,  "a":[]}'], ['[1]', 'null']],
  ['jsonb', 'text', ['{"a": 1}'], ['no json']],
  ['uuid', 'character varying(40)', ['2f1b0d0e-1111-4222-8333-444455556666'], ['short']],
  ['text', 'integer[]', ['{1,2}'], ['{3,NULL}']],
  ['text[]', 'text', ['{a,"b c"}'], ['plain']],
];

test('a column of another type goes on as text, compatible, and destinations follow its type', () =>
  faults.run('carried', { config }, async (pipeline) => {
    for (const [i, [from]] of changes.entries())
      await pipeline.source.query(`create table app.c${i} (id int primary key, v ${from}, w text)`);
    await pipeline.source.query(
      'create table app.bag (v integer, w text); alter table app.bag replica identity full',
    );
    const { reader, delivery } = await started(pipeline);
    const each = async (sql: (i: number, change: (typeof changes)[number]) => string) => {
      for (const [i, change] of changes.entries()) await pipeline.source.query(sql(i, change));
      await pipeline.published();
    };
    const values = (from: number, texts: string[]) =>
      [...texts, null]
        .map((text, k) => `(${from + k}, ${text === null ? 'null' : `'${text}'`}, 'w')`)
        .join(', ');
    await each((i, [, , old]) => `insert into app.c${i} values ${values(1, old)}`);
    await run(pipeline, [`insert into app.bag values (1, 'a'), (1, 'a'), (2, 'b'), (null, 'c')`]);
    await each((i, [, to]) => `alter table app.c${i} alter v type ${to} using v::${to}`);
    await each((i, [, , , now]) => `insert into app.c${i} values ${values(10, now)}`);
    await each((i) => `update app.c${i} set w = 'touched' where id in (1, 10)`);
    await each((i) => `alter table app.c${i} rename v to x`);
    await each((i) => `update app.c${i} set w = 'renamed', x = null where id = 10`);
    await each((i) => `alter table app.c${i} add column v bytea default '\\x01'`);
    await each((i, [, , , now]) => `insert into app.c${i} values (20, '${now[0]}', 'w', null)`);
    await run(pipeline, [
      'alter table app.bag alter v type text',
      `delete from app.bag where w = 'b'`,
      `update app.bag set v = 'one' where ctid = (select min(ctid) from app.bag where v = '1')`,
    ]);
    expect((await pipeline.status()).progress?.parked ?? []).toEqual([]);
    for (const destination of pipeline.destinations) await pipeline.verify(destination);
    const [first, second, third] = await schemas(pipeline, 'app.c0');
    expect(rowFields(first!)).toEqual({ id: 'int', v: 'int', w: 'string' });
    expect(rowFields(second!)).toEqual({ id: 'int', v: 'int', v__text: 'string', w: 'string' });
    expect(rowFields(third!)).toEqual({ id: 'int', x__text: 'string', w: 'string' });
    expect(second!.tidemark).toMatchObject({ version: 2, major: 1 });
    expect(second!.tidemark.columns[1]).toMatchObject({ name: 'v', type: 'text', form: 'text' });
    await Promise.all([reader.stop(), delivery.stop()]);
    await checkStream({
      brokers: pipeline.brokers,
      registryUrl: pipeline.stack.environment.TIDEMARK_REGISTRY_URL!,
      prefix: pipeline.prefix,
    });
  }));

test('rows that no cast brings along stay as text, a new key parks, and resume takes a way of its own', () =>
  faults.run('uncast', { config: { ...config, 'source.snapshot.mode': 'never' } }, async (pipeline) => {
    await pipeline.source.query(`create type app.old as enum ('low', 'high'); create type app.new as enum ('low', 'peak');
      create table app.odd (id int primary key, n integer, e app.old, w text);
      create table app.keyed (id int primary key, v text)`);
    const { reader, delivery } = await started(pipeline);
    await run(pipeline, [
      `insert into app.odd values (1, 3, 'low', 'w'), (2, 4, 'high', 'w'), (3, null, null, 'w')`,
      `insert into app.keyed values (1, 'a')`,
      `alter table app.odd alter n type date using date '2024-01-01' + n`,
      // An enum has no cast to another one, but by way of text.
      `alter table app.odd alter e type app.new using replace(e::text, 'high', 'peak')::app.new`,
      `insert into app.odd values (4, '2024-02-29', 'peak', 'w')`,
      `update app.odd set w = 'touched', n = n + 1, e = e where id = 1`,
    ]);
    await expect(pipeline.verify('replica')).rejects.toThrow(/"table": "app.odd"[\s\S]*Carried as text/);
    await expect(pipeline.verify('lake')).rejects.toThrow(/"table": "app.odd"[\s\S]*Carried as text/);
    // What the hint says.
    const { code, stdout, stderr } = await pipeline.command(['snapshot', 'start', 'app.odd']);
    expect(`${code} ${stdout}${stderr}`).toMatch(/^0/);
    await run(pipeline, [
      'alter table app.keyed drop constraint keyed_pkey, add primary key (id, v)',
      `insert into app.keyed values (2, 'b')`,
    ]);
    await reader.logged('that the table is parked', ({ code: parked }) => parked === 'TM231');
    await reader.logged('that its rows were read', ({ message }) =>
      message.startsWith('the snapshot of app.odd is complete'),
    );
    for (const destination of pipeline.destinations)
      await pipeline.verify(destination, { parked: ['app.keyed'] });
    const again = await pipeline.command(['resume', 'app.keyed', '--as', 'text', '--timeout', '60s']);
    expect(`${again.code} ${again.stdout}`).toContain('1 ✗ app.keyed is parked again');
    const wrong = await pipeline.command(['resume', 'app.keyed', '--as', 'bytes']);
    expect(`${wrong.code} ${wrong.stderr}`).toContain('2 TM101: --as must be one of evolve, text');
    await Promise.all([reader.stop(), delivery.stop()]);
  }));

test('resume --as text brings a parked table back without a new major version', () =>
  faults.run('as-text', { config: { ...config, 'source.tables': '[app.*]' } }, async (pipeline) => {
    await pipeline.source.query('create table app.back (id int primary key, n integer)');
    const { reader, delivery } = await started(pipeline);
    await run(pipeline, [
      'insert into app.back values (1, 1), (2, 2)',
      'alter table app.back alter n type text',
      `insert into app.back values (3, 'three')`,
    ]);
    await reader.logged('that the table is parked', ({ code }) => code === 'TM231');
    const { code, stdout } = await pipeline.command([
      'resume',
      'app.back',
      '--as',
      'text',
      '--timeout',
      '60s',
    ]);
    expect(`${code} ${stdout}`).toContain('0 ✓ app.back is back');
    await run(pipeline, [`insert into app.back values (4, 'four')`]);
    for (const destination of pipeline.destinations) await pipeline.verify(destination);
    expect((await schemas(pipeline, 'app.back')).map(({ tidemark }) => tidemark.major)).toEqual([1, 1]);
    await Promise.all([reader.stop(), delivery.stop()]);
  }));
