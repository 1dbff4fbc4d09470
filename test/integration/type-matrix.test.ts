/**
 * Values survive (invariant 9), end to end: edge values of every type from a real slot, read as binary and as text, and
 * from snapshots, through Kafka to every destination, compared with what Postgres itself says. A further way into Kafka
 * is one more line in `ways`.
 */
import pg, { type Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { hostileNames, type TypeCase, typeCases, typesSetup } from '../fixtures/pgoutput/values.ts';
import { FaultStack, type Pipeline } from '../fixtures/pipeline.ts';
import { textRows } from '../fixtures/postgres.ts';

vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

let stack: FaultStack;
beforeAll(async () => {
  stack = await FaultStack.start('type-matrix');
});
afterAll(async () => {
  await stack?.stop();
});

/** How values come from the source into Kafka. */
const ways = [
  { way: 'pgoutput binary', name: 'binary', values: 'binary', rowsCome: 'through the slot' },
  { way: 'pgoutput text', name: 'text', values: 'text', rowsCome: 'through the slot' },
  // With a key in chunks, without one as the slot's consistent point has them.
  { way: 'snapshot', name: 'snapshot', values: 'auto', rowsCome: 'before the slot' },
] as const;

/** The sample application has the schema app for itself. */
const renamed = (text: string) => text.replace(/\bapp\b/g, 'kinds');

const kinds: TypeCase[] = typeCases.map(({ type, edges, random }) => ({
  type: renamed(type),
  // Of the long lists of numbers, the codecs' own test takes every one.
  edges: edges.slice(0, 30),
  random,
}));
const scalars = kinds.filter(({ type }) => !type.endsWith('[]'));
const arrays = kinds.filter(({ type }) => type.endsWith('[]'));

/** Another way of writing everything: none of it may reach a value. */
const foreignSettings = [
  ['datestyle', 'German'],
  ['intervalstyle', 'iso_8601'],
  ['timezone', 'Asia/Kolkata'],
  ['bytea_output', 'escape'],
  ['extra_float_digits', '-3'],
] as const;

async function inDatabase(pipeline: Pipeline, part: string, work: (client: Client) => Promise<void>) {
  const url = new URL(pipeline.stack.environment.TIDEMARK_SOURCE_URL!);
  url.pathname = `/${pipeline.databaseName(part)}`;
  const client = new pg.Client({ connectionString: url.href });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

async function prepare(pipeline: Pipeline): Promise<void> {
  for (const part of ['app', 'replica']) {
    await inDatabase(pipeline, part, async (client) => {
      for (const [name, value] of foreignSettings) {
        await client.query(
          `alter database ${pg.escapeIdentifier(pipeline.databaseName(part))} set ${name} = ${pg.escapeLiteral(value)}`,
        );
      }
    });
  }
  await pipeline.reconnect();
  await pipeline.source.query(`set datestyle = 'ISO'; set timezone = 'UTC'; ${renamed(typesSetup)}`);
  // What the replica cannot make itself.
  await inDatabase(pipeline, 'replica', async (client) => {
    await client.query(
      `create schema kinds; create extension citext schema kinds; create extension hstore schema kinds; create extension ltree schema kinds`,
    );
  });
}

/** A table with a column per type: row by row, the types' edges. */
async function createWide(source: Client, name: string, of: readonly TypeCase[], keyed: boolean) {
  const columns = of.map(({ type }, i) => `c${i} ${type}`);
  await source.query(
    `create table app.${name} (id int ${keyed ? 'primary key' : ''}, ${columns.join(', ')}); ${keyed ? '' : `alter table app.${name} replica identity full`}`,
  );
}

async function fillWide(source: Client, name: string, of: readonly TypeCase[]): Promise<void> {
  const rows = Math.max(...of.map(({ edges }) => edges.length));
  for (let row = 0; row <= rows; row++) {
    const values = of.map(({ edges }) => edges[row] ?? null);
    const cells = of.map(({ type }, i) => `$${i + 1}::${type}`);
    await source.query(`insert into app.${name} values (${row}, ${cells.join(', ')})`, values);
  }
  // Every value once more, in another row and as an old image.
  await source.query(`update app.${name} set id = id + 1000 where id % 3 = 0`);
  const swapped = of.map((_, i) => `c${i} = other.c${i}`);
  await source.query(
    `update app.${name} t set ${swapped.join(', ')} from app.${name} other where other.id = t.id + 1 and t.id % 3 = 1`,
  );
  await source.query(`delete from app.${name} where id % 7 = 2`);
}

/** One table per type that can be a key. @returns the types */
async function createKeys(source: Client): Promise<{ table: string; of: TypeCase }[]> {
  const made: { table: string; of: TypeCase }[] = [];
  for (const [i, of] of scalars
    .concat(arrays.filter(({ type }) => /^(text|integer|date)\[\]$/.test(type)))
    .entries()) {
    const table = `key_${i}`;
    try {
      await source.query(`create table app.${table} (k ${of.type} primary key, v int)`);
    } catch (error) {
      // 42704: no operator class, so no key.
      expect((error as { code?: string }).code, of.type).toBe('42704');
      continue;
    }
    made.push({ table, of });
  }
  return made;
}

async function fillKeys(source: Client, keys: readonly { table: string; of: TypeCase }[]): Promise<void> {
  for (const { table, of } of keys) {
    const insert = `insert into app.${table} select v::${of.type}, i from unnest($1::text[]) with ordinality as u (v, i) on conflict do nothing`;
    await source.query(insert, [of.edges]);
    await source.query(`update app.${table} set v = v + 100 where v % 2 = 0`);
    await source.query(`delete from app.${table} where v % 5 = 4`);
  }
}

/** All that Postgres takes as text: no surrogates, no zero. In pieces of 8,192. */
function everyCodePoint(): string[] {
  const pieces: string[] = [];
  for (let first = 0; first < 0x110000; first += 8192) {
    const codes = Array.from({ length: 8192 }, (_, i) => first + i);
    const valid = codes.filter((code) => code !== 0 && !(code >= 0xd800 && code <= 0xdfff));
    pieces.push(valid.map((code) => String.fromCodePoint(code)).join(''));
  }
  return pieces;
}

/** 50 MB that do not compress. */
const largeBytes = `insert into app.large
  select 10000, 'large', string_agg(sha256(convert_to(i::text, 'UTF8')), '') from generate_series(1, 1562500) i`;

/** The replica's rows are the source's, text by text, without Tidemark in between. */
async function expectSameRows(pipeline: Pipeline, tables: readonly string[]): Promise<void> {
  const settings = `set datestyle = 'ISO'; set timezone = 'UTC'; set intervalstyle = 'postgres'; set bytea_output = 'hex'; set extra_float_digits = 1; set search_path = ''`;
  const rowsOf = async (client: Client, table: string) =>
    (await textRows(client, `select * from app.${table}`)).map((row) => JSON.stringify(row)).sort();
  await inDatabase(pipeline, 'app', async (source) => {
    await source.query(settings);
    await inDatabase(pipeline, 'replica', async (replica) => {
      await replica.query(settings);
      for (const table of tables) {
        expect(await rowsOf(replica, table), table).toEqual(await rowsOf(source, table));
      }
    });
  });
}

/** Small: nearly every type of key is a place that a scan has reached. */
const chunkRows = 9;

describe.each(ways)('every type, $way', ({ name, values, rowsCome }) => {
  test('reaches every destination as Postgres prints it', () =>
    stack.run(
      `types-${name}`,
      {
        config: {
          'source.values': values,
          'source.snapshot.chunk.rows': String(chunkRows),
          'kafka.topic.partitions': '1',
        },
      },
      async (pipeline) => {
        await prepare(pipeline);
        const { source } = pipeline;
        await createWide(source, 'scalars', scalars, true);
        await createWide(source, 'arrays', arrays, true);
        await createWide(source, 'keyless', scalars, false);
        await source.query(
          'create table app.large (id int primary key, t text, b bytea); alter table app.large alter t set storage external, alter b set storage external',
        );
        // A place in a scan whose order is not that of the key's text.
        await source.query('create table app.pairs (b bool, c kinds.citext, n int, primary key (b, c, n))');
        const keys = await createKeys(source);
        expect(keys.length).toBeGreaterThan(50);
        const fill = async () => {
          await fillWide(source, 'scalars', scalars);
          await fillWide(source, 'arrays', arrays);
          await fillWide(source, 'keyless', scalars);
          await fillKeys(source, keys);
          await source.query(
            `insert into app.pairs select i % 2 = 0, (array['a', 'B', 'c', 'D', 'é'])[1 + i % 5], i from generate_series(1, 60) i`,
          );
          await source.query(
            'insert into app.large select i, t, null from unnest($1::text[]) with ordinality as u (t, i)',
            [everyCodePoint()],
          );
          await source.query(largeBytes);
        };
        if (rowsCome === 'before the slot') await fill();
        const reader = pipeline.replicate();
        const delivery = pipeline.deliver();
        await pipeline.streaming(reader);
        if (rowsCome === 'through the slot') await fill();
        for (const destination of pipeline.destinations) await pipeline.verify(destination);
        const tables = ['scalars', 'arrays', 'keyless', 'pairs', ...keys.map(({ table }) => table)];
        if (pipeline.destinations.includes('replica')) await expectSameRows(pipeline, tables);
        if (rowsCome === 'before the slot') await expectRead(pipeline, tables);
        await Promise.all([reader.stop(), delivery.stop()]);
      },
    ));
});

/** Their snapshots brought every row: none of them came another way. */
async function expectRead({ control, source }: Pipeline, tables: readonly string[]): Promise<void> {
  for (const table of tables) {
    const { rows } = await control.query(
      `select kind, state, rows::int as rows from tidemark.snapshots where table_name = $1`,
      [`app.${table}`],
    );
    const { rows: counted } = await source.query(`select count(*)::int as rows from app.${table}`);
    expect(rows, table).toEqual([{ kind: 'initial', state: 'done', rows: counted[0].rows }]);
  }
}

describe('types whose binary form nobody here knows', () => {
  test('switch the stream to text, in flight and from the start, and are reported by check', () =>
    stack.run('types-unknown', { config: { 'kafka.topic.partitions': '1' } }, async (pipeline) => {
      await prepare(pipeline);
      const { source } = pipeline;
      for (const part of ['app', 'replica'])
        await inDatabase(pipeline, part, async (client) => void (await client.query(strangeTypes)));
      await source.query(`create type kinds.pliable as (a int);
        create table app.flight (id int primary key, c kinds.pliable, m kinds.mute)`);
      let reader = pipeline.replicate();
      const delivery = pipeline.deliver();
      await pipeline.streaming(reader);
      const forms = () =>
        reader.logLines().flatMap(({ message, values }) => (message === 'reading the slot' ? [values] : []));
      // A type without a send function comes as text in the binary stream.
      await source.query(`insert into app.flight values (1, null, 'as text'), (2, null, '')`);
      for (const destination of pipeline.destinations) await pipeline.verify(destination);
      const started = forms().length;
      expect(forms().at(-1)).toBe('binary');

      // No Relation message says that a composite changed; what is new in it, the destination's owner adds there.
      const widen = async (attribute: string) => {
        const statement = `alter type kinds.pliable add attribute ${attribute}`;
        await source.query(statement);
        await inDatabase(pipeline, 'replica', async (client) => void (await client.query(statement)));
      };
      await widen('t text');
      await source.query(`insert into app.flight values (3, '(3,three)', 'c')`);
      await reader.logged('that it reads binary again', () => forms().length === started + 1);
      for (const destination of pipeline.destinations) await pipeline.verify(destination);
      await source.query(`update app.flight set c = null`);
      await widen('o kinds.odd');
      await source.query(`insert into app.flight values (4, '(4,four,"odd, ""one""")', null)`);
      await source.query(`update app.flight set m = 'new' where id = 1`);
      await reader.logged('that it reads text', () => forms().at(-1) === 'text');
      for (const destination of pipeline.destinations) await pipeline.verify(destination);
      expect(forms().slice(started)).toEqual(['binary', 'text']);

      await reader.stop();
      await source.query(`create table app.strange (id int primary key, o kinds.odd, os kinds.odd[], ms kinds.mute[],
        r regclass, rs regtype[], a aclitem, acl aclitem[], c kinds.pliable[], d kinds.odd_domain)`);
      reader = pipeline.replicate();
      await pipeline.streaming(reader);
      expect(forms().at(-1)).toBe('text');
      const warned = reader
        .logLines()
        .find(({ message }) => String(message).startsWith('values are read as text'));
      expect(JSON.stringify(warned)).toContain('"column":"os"');
      await source.query(`insert into app.strange values
        (1, 'it''s', '{a,NULL,"b c"}', '{{a},{b}}', 'app.flight', '{kinds.odd,text}', 'postgres=r/postgres',
         '{postgres=r/postgres,=w/postgres}', array[row(1, 'x', 'y')::kinds.pliable], 'domain'),
        (2, null, '{}', null, null, null, null, null, '{}', '')`);
      await source.query(`update app.strange set o = 'changed' where id = 1`);
      for (const destination of pipeline.destinations) await pipeline.verify(destination);

      const { code, stdout } = await pipeline.command(['check', '--json']);
      const { sections } = JSON.parse(stdout) as {
        sections: { findings: { level: string; what: string }[] }[];
      };
      const found = sections.flatMap(({ findings }) => findings);
      const about = (column: string) =>
        found.find(({ what }) => what.startsWith(`app.strange.${column} has type`));
      for (const column of ['o', 'os', 'ms', 'r', 'rs', 'acl', 'c', 'd'])
        expect(about(column), column).toMatchObject({ level: 'warn' });
      expect(about('a')).toBeUndefined();
      expect([0, 1]).toContain(code);
      await Promise.all([reader.stop(), delivery.stop()]);
    }));
});

/** Stand-ins for types of extensions in C: one with a send function of its own, one without any. */
const strangeTypes = ['odd', 'mute']
  .map(
    (name) => `create schema if not exists kinds; create type kinds.${name};
  create function kinds.${name}_in(cstring) returns kinds.${name} language internal immutable strict as 'textin';
  create function kinds.${name}_out(kinds.${name}) returns cstring language internal immutable strict as 'textout';
  create function kinds.${name}_send(kinds.${name}) returns bytea language internal immutable strict as 'textsend';
  create type kinds.${name} (input = kinds.${name}_in, output = kinds.${name}_out,
    ${name === 'odd' ? 'send = kinds.odd_send,' : ''} internallength = variable, storage = extended);`,
  )
  .join('\n')
  .concat('create domain kinds.odd_domain as kinds.odd;');

describe('names and kinds of columns', () => {
  test('whatever Postgres takes as a name; generated and identity columns', () =>
    stack.run('types-names', { config: { 'kafka.topic.partitions': '1' } }, async (pipeline) => {
      const { source } = pipeline;
      const quoted = pg.escapeIdentifier;
      const names = [...new Set([...hostileNames, 'a_b', 'a+b', 'a_b_2', 'A_B', `${'ä'.repeat(31)}b`])];
      const tables = ['Upper', 'select', 'it\'s "so", isn.t it?', '🌊'.repeat(15), 'x'.repeat(63), '1', ' '];
      for (const table of tables) {
        await source.query(
          `create table app.${quoted(table)} (${names.map((name) => `${quoted(name)} text`).join(', ')}, primary key (${quoted('a b')}, ${quoted('a-b')}))`,
        );
      }
      await source.query(`create type app."Ty.pe ""q""" as enum ('x');
        create type app."Co.mp" as ("a.b" int, "Select" app."Ty.pe ""q""");
        create table app.computed (id int generated always as identity primary key, other int generated by default as identity,
          a int, b int generated always as (a * 2) stored, c app."Co.mp", d app."Ty.pe ""q"""[])`);
      const reader = pipeline.replicate();
      const delivery = pipeline.deliver();
      await pipeline.streaming(reader);
      for (const table of tables) {
        const insert = `insert into app.${quoted(table)} values (${names.map((_, i) => `$${i + 1}`).join(', ')})`;
        for (const row of ['1', '2', '3'])
          await source.query(
            insert,
            names.map((name) => `${row} ${name}`),
          );
        await source.query(
          `update app.${quoted(table)} set ${quoted('A')} = null, ${quoted('a_b')} = 'new' where ${quoted('a b')} like '1%'`,
        );
        await source.query(
          `update app.${quoted(table)} set ${quoted('a-b')} = 'moved' where ${quoted('a b')} like '2%'`,
        );
        await source.query(`delete from app.${quoted(table)} where ${quoted('a b')} like '3%'`);
      }
      await source.query(
        `insert into app.computed (a, c, d) values (1, '(1,x)', '{x}'), (2, null, null), (null, '(,)', '{}')`,
      );
      await source.query(`update app.computed set a = a + 1`);
      for (const destination of pipeline.destinations) await pipeline.verify(destination);
      if (pipeline.destinations.includes('replica')) await expectSameRows(pipeline, tables.map(quoted));
      await Promise.all([reader.stop(), delivery.stop()]);
    }));
});
