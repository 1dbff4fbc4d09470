/** The Postgres sink: the tables it makes, the tables it finds, and what `check` says. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { postgresSink } from '../../connectors/sinks/postgres/index.ts';
import type { MergeSink, Readable } from '../../src/connector/sink.ts';
import {
  at,
  context,
  failure,
  type Logged,
  mergeTable,
  openSink,
  options,
  readAll,
  shape,
  sorted,
  startPostgres,
  type TestServer,
  upsert,
  users,
  windowOf,
  withSink,
} from './postgres-sink-fixture.ts';

vi.setConfig({ testTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await startPostgres();
}, 60_000);
afterAll(() => server.stop());

describe('definitions', () => {
  test('an existing table with other columns is TM405 naming table and column', () =>
    withSink(server, async (sink, database) => {
      const client = await server.connect(database);
      const cases = [
        ['CREATE TABLE app.users (id bigint primary key, name text)', 'lacks column "bio"'],
        [
          'CREATE TABLE app.users (id bigint primary key, name varchar(5), bio text)',
          'column "name" as character varying(5)',
        ],
        ['CREATE TABLE app.users (id bigint primary key, name text, bio text, more text)', '"more"'],
        [
          'CREATE TABLE app.users (id bigint primary key, name text not null, bio text)',
          'NULL in column "name"',
        ],
        ['CREATE TABLE app.users (id bigint, name text, bio text)', 'no primary key'],
        ['CREATE VIEW app.users AS SELECT 1', 'not a plain table'],
      ] as const;
      await client.query('CREATE SCHEMA app');
      for (const [create, message] of cases) {
        await client.query(create);
        const error = await failure(sink.mergeWindow(windowOf(1, [mergeTable(users, {})])));
        expect(error.code).toBe('TM405');
        expect(error.message).toContain('app.users');
        expect(error.message).toContain(message);
        await client.query(`DROP ${create.startsWith('CREATE VIEW') ? 'VIEW' : 'TABLE'} app.users`);
      }
      await client.query('CREATE TABLE app.users (bio text, id bigint primary key, name text)');
      await sink.mergeWindow(windowOf(1, [mergeTable(users, { states: [upsert(users, ['1', 'a', 'b'])] })]));
      expect(await readAll(sink, users, at(1))).toEqual([['1', 'a', 'b']]);
      await client.end();
    }));

  test('a table that was changed by hand is TM405 when the shape changes, a dropped table TM404', () =>
    withSink(server, async (sink, database) => {
      await sink.mergeWindow(windowOf(1, [mergeTable(users, {})]));
      const wider = shape('app', 'users', ['id bigint key', 'name text', 'bio text', 'age integer']);
      const client = await server.connect(database);
      await client.query('ALTER TABLE app.users DROP COLUMN bio');
      const error = await failure(sink.mergeWindow(windowOf(2, [mergeTable(wider, {})])));
      expect(error).toMatchObject({
        code: 'TM405',
        remedy: 'ALTER TABLE "app"."users" ADD COLUMN "bio" text;',
      });
      await client.query('DROP TABLE app.users');
      await client.end();
      expect((await failure(sink.mergeWindow(windowOf(2, [mergeTable(users, {})])))).code).toBe('TM404');
    }));

  test('a missing type is TM405, missing enum labels are added', () =>
    withSink(server, async (sink) => {
      const mail = shape('app', 'mail', ['id integer key', 'address app.email']);
      const error = await failure(sink.mergeWindow(windowOf(1, [mergeTable(mail, {})])));
      expect(error.code).toBe('TM405');
      expect(error.message).toContain('app.mail');
      const level = (labels: string[]) =>
        shape('app', 'levels', [
          {
            name: 'level',
            type: 'app.level',
            key: true,
            nullable: false,
            enum: { schema: 'app', name: 'level', labels },
          },
        ]);
      await sink.mergeWindow(windowOf(1, [mergeTable(level(['a']), {})]));
      const two = level(['a', 'b']);
      await sink.mergeWindow(
        windowOf(2, [mergeTable(two, { states: [upsert(two, ['b']), upsert(two, ['a'])] })]),
      );
      await sink.mergeWindow(windowOf(3, [mergeTable(two, { states: [upsert(two, ['b'])] })]));
      expect((await readAll(sink, two, at(3))).length).toBe(2);
    }));

  test('composites, ranges and the type under a domain are made; an extension is named', () =>
    withSink(server, async (sink, database) => {
      const column = (name: string, type: string, more: object) => ({
        name,
        type,
        key: false,
        nullable: true,
        ...more,
      });
      const level = { schema: 'kinds', name: 'Level', labels: ['low', "h'igh"] };
      const inner = {
        schema: 'kinds',
        name: 'in "ner',
        attributes: [
          { name: 'a.b', type: 'numeric(9,3)' },
          { name: 'l', type: 'kinds."Level"[]', enum: level },
        ],
      };
      const outer = {
        schema: 'kinds',
        name: 'outer',
        attributes: [{ name: 'select', type: 'kinds."in ""ner"[]', composite: inner }],
      };
      const span = { schema: 'kinds', name: 'span', subtype: 'double precision', multirange: 'spans' };
      const made = shape('app', 'made', [
        'id integer key',
        column('o', 'kinds.outer', { composite: outer }),
        column('s', 'kinds.spans[]', { range: span }),
        column('d', 'kinds.amount[]', { base: 'numeric(9,3)[]' }),
      ]);
      const row = ['1', '("{""(1.500,{low})""}")', '{"{[1,2.5)}"}', '{1.500,NULL}'];
      await sink.mergeWindow(windowOf(1, [mergeTable(made, { states: [upsert(made, row)] })]));
      expect(await readAll(sink, made, at(1))).toEqual([row]);
      const client = await server.connect(database);
      const { rows } = await client.query(
        `select format_type(atttypid, atttypmod) as type from pg_attribute where attrelid = 'app.made'::regclass and attname = 'd'`,
      );
      expect(rows[0].type).toBe('numeric(9,3)[]');
      await client.end();

      const vector = { name: 'vector', schema: 'My "ext"', type: 'vector' };
      const lacking = shape('app', 'lacking', [
        'id integer key',
        column('v', '"My ""ext""".vector(3)', { extension: vector }),
      ]);
      expect(await failure(sink.mergeWindow(windowOf(2, [mergeTable(lacking, {})])))).toMatchObject({
        code: 'TM405',
        remedy: 'CREATE EXTENSION "vector" SCHEMA "My ""ext""";',
      });
    }));

  test('a table belongs to one destination', () =>
    withSink(server, async (sink, database) => {
      await sink.mergeWindow(windowOf(1, [mergeTable(users, {})]));
      const other = await openSink(server, database, { destination: 'other' });
      const window = windowOf(1, [mergeTable(users, {})], { destination: 'other' });
      const error = await failure(other.mergeWindow(window));
      expect(error.code).toBe('TM405');
      expect(error.message).toContain('belongs to destination replica');
      await other.close();
    }));

  test("a source that tracks another destination's own tables does not write to this one's", () =>
    withSink(server, async (sink, database) => {
      const client = await server.connect(database);
      await sink.mergeWindow(windowOf(1, [mergeTable(users, { states: [upsert(users, ['1', 'a', 'b'])] })]));
      const { rows: columns } = await client.query(
        `SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute
          WHERE attrelid = '_tidemark.progress'::regclass AND attnum > 0 ORDER BY attnum`,
      );
      const keys = ['source_id', 'destination', 'unit'];
      const progress = {
        ...users,
        schema: '_tidemark',
        name: 'progress',
        columns: columns.map(({ name, type }) => {
          const key = keys.includes(name);
          return { name, type, key, nullable: !key };
        }),
        keyColumns: keys.map((key) => columns.findIndex(({ name }) => name === key)),
      };
      // All that kept it out was that its columns allow no NULL, and what was advised against that.
      const error = await failure(sink.mergeWindow(windowOf(2, [mergeTable(progress, { truncated: true })])));
      expect(error).toMatchObject({ code: 'TM405', remedy: expect.stringContaining('schema.map') });
      expect(await sink.held('*')).toMatchObject({ sequence: 1 });
    }));

  test('a type name that is no type name is refused', () =>
    withSink(server, async (sink) => {
      const evil = shape('app', 'evil', ['id integer key', 'x text); DROP SCHEMA app; --']);
      const error = await failure(sink.mergeWindow(windowOf(1, [mergeTable(evil, {})])));
      expect(error.code).toBe('TM405');
      expect(error.message).toContain('"x"');
    }));

  test('a table of 1000 columns', () =>
    withSink(server, async (sink) => {
      const columns = Array.from({ length: 999 }, (_, i) => `column_${i} ${i % 2 ? 'text' : 'integer'}`);
      const wide = shape('app', 'wide', ['id integer key', ...columns]);
      const row = (id: number) => [
        String(id),
        ...columns.map((_, i) => (i % 2 && i < 300 ? `t${i}` : String(i))),
      ];
      for (const [sequence, n] of [
        [1, 3],
        [2, 700],
      ] as const) {
        const states = Array.from({ length: n }, (_, id) => {
          if (sequence === 1 || id >= 3) return upsert(wide, row(id));
          return upsert(wide, [String(id), ...columns.map(() => undefined)], [String(id)]);
        });
        await sink.mergeWindow(windowOf(sequence, [mergeTable(wide, { states })]));
        expect(sorted(await readAll(sink, wide, at(sequence)))).toEqual(
          sorted(Array.from({ length: n }, (_, id) => row(id))),
        );
      }
    }));
});

describe('check', () => {
  test('a fit destination is ok, foreign tables are a warning', async () => {
    const database = await server.database();
    expect(await postgresSink.check(context(), options(server, database))).toEqual([
      { level: 'ok', what: expect.stringMatching(/^Postgres \d+ answers/), remedy: null },
    ]);
    const sink = await openSink(server, database);
    await sink.mergeWindow(windowOf(1, [mergeTable(users, {})]));
    await sink.close();
    expect((await postgresSink.check(context(), options(server, database))).length).toBe(1);
    const client = await server.connect(database);
    await client.query('CREATE TABLE app.theirs (x int)');
    await client.end();
    const findings = await postgresSink.check(context(), options(server, database));
    expect(findings.map(({ level }) => level)).toEqual(['ok', 'warn']);
    expect(findings[1]!.what).toContain('app.theirs');
  });

  test('missing rights come with the statement that grants them', async () => {
    const database = await server.database();
    const admin = await server.connect(database);
    await admin.query("CREATE ROLE limited LOGIN PASSWORD 'limited'");
    const limited = {
      ...options(server, database),
      'connection.user': 'limited',
      'connection.password': 'limited',
    };
    const findings = await postgresSink.check(context(), limited);
    expect(findings.filter(({ level }) => level === 'error')).toEqual([
      {
        level: 'error',
        what: 'no right to create schemas',
        remedy: `GRANT CREATE ON DATABASE "${database}" TO "limited";`,
      },
    ]);
    const logged: Logged[] = [];
    const sink = (await postgresSink.open(context({}, logged), limited)) as MergeSink & Readable;
    expect((await failure(sink.mergeWindow(windowOf(1, [mergeTable(users, {})])))).code).toBe('TM402');
    for (const { remedy } of findings) if (remedy?.startsWith('GRANT')) await admin.query(remedy);
    await sink.mergeWindow(windowOf(1, [mergeTable(users, { states: [upsert(users, ['1', 'a', 'b'])] })]));
    expect(logged.map(({ message }) => message)).toContain('created table');
    await Promise.all([sink.close(), admin.end()]);
    const gone = await postgresSink.check(context(), { ...limited, 'connection.database': 'nowhere' });
    expect(gone).toMatchObject([{ level: 'error' }]);
    expect(gone[0]!.what).toContain('TM402');
  });
});
