/**
 * What is particular to the ClickHouse sink: that its views stand at the end of a Window at every moment, whatever is
 * half written, killed or merged behind them. What every sink must do is in the conformance suite.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { clickhouseSink } from '../../connectors/sinks/clickhouse/index.ts';
import type { ColumnShape, TableShape } from '../../src/connector/shape.ts';
import type { MergeSink, MergeTable, OptionValues, Row, RowEvent } from '../../src/connector/sink.ts';
import { type ClickHouse, openClickHouse, startClickHouse } from './clickhouse-sink-fixture.ts';
import {
  at,
  context,
  failure,
  mergeTable,
  readAll,
  remove,
  shape,
  sorted,
  upsert,
  users,
  windowOf,
} from './postgres-sink-fixture.ts';

let server: ClickHouse;
beforeAll(async () => {
  server = await startClickHouse();
});
afterAll(() => server?.stop());

const unit = { unit: 'app.users' };

function view(options: OptionValues, name = 'app.users'): string {
  return `${options['clickhouse.database']}.\`${name}\``;
}

/** Rows `1` to `count`, all with this name. */
function named(sequence: number, count: number, name: string): MergeTable {
  const states = Array.from({ length: count }, (_, i) => ({
    ...upsert(users, [String(i + 1), name, 'b'.repeat(40)]),
    position: at(sequence),
  }));
  return mergeTable(users, { states });
}

async function tablesOf(options: OptionValues): Promise<string[]> {
  const rows = await server.query(
    `SELECT name FROM system.tables WHERE database = '${options['clickhouse.database']}' AND name LIKE '%\\_rows\\_%'`,
  );
  return rows.map(([name]) => name!);
}

describe('a reader of the view', () => {
  it('sees the rows of the last Window, by the names and types of the source', async () => {
    const options = server.place();
    const sink = await openClickHouse(options);
    const first = windowOf(1, [named(1, 2, 'one')], unit);
    expect((await sink.mergeWindow(first)).alreadyHeld).toBe(false);
    expect((await sink.mergeWindow(first)).alreadyHeld).toBe(true);
    const states = [
      upsert(users, ['1', 'uno', undefined], ['1']),
      remove('2'),
      upsert(users, ['3', 'drei\t\n\\', "'"]),
    ];
    await sink.mergeWindow(
      windowOf(
        2,
        [mergeTable(users, { states: states.map((state) => ({ ...state, position: at(2) })) })],
        unit,
      ),
    );
    const wanted = [
      ['1', 'uno', 'b'.repeat(40)],
      ['3', 'drei\t\n\\', "'"],
    ];
    expect(await server.query(`SELECT * FROM ${view(options)} ORDER BY id`)).toEqual(wanted);
    expect(await readAll(sink, users, at(2))).toEqual(wanted);
    expect(await sink.held('app.users')).toEqual({ position: at(2), sequence: 2, fencingToken: 1n });
    expect((await failure(readAll(sink, users, at(1)))).code).toBe('TM408');
    await sink.close();
  });

  it('sees no row of a Window that is not whole, also when everything behind the view is merged', async () => {
    const options = server.place({ 'insert.block.bytes': 65_536 });
    let stopAt = '';
    const seen: string[] = [];
    const look = async () => {
      for (const table of await tablesOf(options)) {
        await server.query(`OPTIMIZE TABLE ${options['clickhouse.database']}.${table} FINAL`);
      }
      return server.query(`SELECT DISTINCT name FROM ${view(options)}`);
    };
    const sink = await openClickHouse(options, {
      failpoint: async (name) => {
        if (stopAt === '') return;
        seen.push(name, ...(await look()).map(([text]) => text!));
        if (name === stopAt) throw new Error('stopped here');
      },
    });
    await sink.mergeWindow(windowOf(1, [named(1, 5000, 'first')], unit));
    for (stopAt of ['clickhouse-sink-staged', 'clickhouse-sink-before-commit']) {
      await failure(sink.mergeWindow(windowOf(2, [named(2, 5000, 'second')], unit)));
      expect(await look()).toEqual([['first']]);
    }
    expect(seen).not.toContain('second');
    stopAt = 'none';
    await sink.mergeWindow(windowOf(2, [named(2, 5000, 'second')], unit));
    expect(seen.at(-1)).toBe('second');
    expect(await look()).toEqual([['second']]);
    await sink.close();
  });

  it('sees whole Windows while others are written, shapes change and the table is truncated', async () => {
    const options = server.place({ 'insert.block.bytes': 65_536 });
    const sink = await openClickHouse(options);
    const more: TableShape = {
      ...users,
      columns: [...users.columns, { name: 'more', type: 'text', key: false, nullable: true }],
    };
    await sink.mergeWindow(windowOf(1, [named(1, 1000, '1')], unit));
    let done = false;
    const wrong: unknown[] = [];
    let looks = 0;
    const reader = (async () => {
      while (!done) {
        const [row] = await server.query(`SELECT uniqExact(name), any(name), count() FROM ${view(options)}`);
        // Window n has 1000 + n rows, all of them named n; the first has 1000.
        const [names, name, count] = row!;
        const wanted = name === '1' ? 1000 : 1000 + Number(name);
        if (names !== '1' || Number(count) !== wanted) wrong.push(row);
        looks++;
      }
    })();
    for (let n = 2; n <= 14; n++) {
      const table = named(n, 1000 + n, String(n));
      const shaped: MergeTable =
        n < 8
          ? table
          : {
              ...table,
              shape: more,
              states: async function* () {
                for await (const states of table.states())
                  yield states.map((state) =>
                    state.op === 'upsert' ? { ...state, values: [...state.values, 'm'] } : state,
                  );
              },
            };
      await sink.mergeWindow(windowOf(n, [{ ...shaped, truncated: n % 4 === 0 }], unit));
      await sleep(5);
    }
    done = true;
    await reader;
    expect(wrong).toEqual([]);
    expect(looks).toBeGreaterThan(10);
    await sink.close();
  });

  it('sees a whole Window whenever the server is killed', async () => {
    const options = server.place({ 'insert.block.bytes': 65_536 });
    let token = 1n;
    let sink = await openClickHouse(options);
    await sink.mergeWindow(windowOf(1, [named(1, 3000, '1')], unit));
    let last = 1;
    for (let kill = 0; kill < 6; kill++) {
      const window = (n: number) =>
        windowOf(n, [{ ...named(n, 3000, String(n)), truncated: n % 3 === 0 }], {
          ...unit,
          fencingToken: token,
        });
      const merging = (async () => {
        for (let n = last + 1; ; n++) {
          await sink.mergeWindow(window(n));
          last = n;
        }
      })();
      await Promise.all([
        failure(merging),
        sleep(40 + Math.random() * 250).then(() =>
          server.stack.stopPart('clickhouse', { signal: 'SIGKILL' }),
        ),
      ]);
      await sink.close();
      await server.stack.startPart('clickhouse');
      const seen = await server.query(`SELECT name, count() FROM ${view(options)} GROUP BY name`);
      // The Window that was under way is there whole, or not at all.
      expect([[[String(last), '3000']], [[String(last + 1), '3000']]]).toContainEqual(seen);
      token++;
      sink = await openClickHouse(options);
      const held = await sink.held('app.users');
      expect(String(held!.sequence)).toBe(seen[0]![0]);
      last = held!.sequence;
    }
    await sink.close();
  });

  it('sees a whole Window after the server was killed at each step of one', async () => {
    const options = server.place({ 'insert.block.bytes': 65_536 });
    for (const point of [
      'clickhouse-sink-staged',
      'clickhouse-sink-before-commit',
      'clickhouse-sink-committed',
    ]) {
      const place = {
        ...options,
        'clickhouse.database': `${options['clickhouse.database']}_${point.slice(16).replace('-', '_')}`,
      };
      const before = await openClickHouse(place);
      await before.mergeWindow(windowOf(1, [named(1, 3000, 'first')], unit));
      await before.close();
      const dying = await openClickHouse(place, {
        failpoint: async (name) => {
          if (name !== point) return;
          await server.stack.stopPart('clickhouse', { signal: 'SIGKILL' });
          throw new Error('the server is gone');
        },
      });
      const second = windowOf(2, [named(2, 3000, 'second')], { ...unit, fencingToken: 2n });
      await failure(dying.mergeWindow(second));
      await dying.close();
      await server.stack.startPart('clickhouse');
      const committed = point === 'clickhouse-sink-committed';
      expect(await server.query(`SELECT DISTINCT name FROM ${view(place)}`)).toEqual([
        [committed ? 'second' : 'first'],
      ]);
      const heir = await openClickHouse(place);
      const receipt = await heir.mergeWindow({ ...second, fencingToken: 3n });
      expect(receipt.alreadyHeld).toBe(committed);
      expect(await server.query(`SELECT name, count() FROM ${view(place)} GROUP BY name`)).toEqual([
        ['second', '3000'],
      ]);
      await heir.close();
    }
  });
});

describe('an owner that was replaced', () => {
  it('finds its stage and its view gone', async () => {
    const options = server.place();
    const old = await openClickHouse(options);
    await old.mergeWindow(windowOf(1, [named(1, 10, 'first')], unit));
    const heir = await openClickHouse(options);
    await heir.mergeWindow(windowOf(2, [named(2, 10, 'second')], { ...unit, fencingToken: 2n }));
    for (const table of [named(2, 10, 'zombie'), { ...named(2, 10, 'zombie'), truncated: true }]) {
      expect((await failure(old.mergeWindow(windowOf(2, [table], unit)))).code).toBe('TM403');
    }
    expect(await server.query(`SELECT DISTINCT name FROM ${view(options)}`)).toEqual([['second']]);
    await old.close();
    await heir.close();
  });

  it('leaves nothing behind', async () => {
    const options = server.place();
    const doomed = await openClickHouse(options, {
      failpoint: async (name) => {
        if (name === 'clickhouse-sink-before-commit') throw new Error('died');
      },
    });
    await failure(doomed.mergeWindow(windowOf(1, [named(1, 10, 'lost')], unit)));
    await doomed.close();
    expect(await tablesOf(options)).toHaveLength(1);
    const heir = await openClickHouse(options);
    await heir.mergeWindow(windowOf(1, [named(1, 10, 'kept')], { ...unit, fencingToken: 2n }));
    expect(await tablesOf(options)).toHaveLength(1);
    expect(await server.query(`SELECT DISTINCT name FROM ${view(options)}`)).toEqual([['kept']]);
    await heir.close();
  });
});

describe('types', () => {
  const columns: [string, string, string, (string | null)[]][] = [
    ['n', 'numeric(12,2)', 'Nullable(Decimal(12, 2))', ['12.50', 'NaN', '-0.01', '9999999999.99', null]],
    ['wide', 'numeric(80,2)', 'Nullable(String)', ['1.50', 'NaN', `${'9'.repeat(78)}.99`, '0.00', null]],
    ['free', 'numeric', 'Nullable(String)', ['1.50', 'Infinity', '1e-400', '0.00', null]],
    ['r', 'real', 'Nullable(Float32)', ['0.1', 'NaN', '-0', '3.4028235e+38', null]],
    ['d', 'double precision', 'Nullable(Float64)', ['0.1', '-Infinity', '1e+22', '123456789012345.6', null]],
    ['day', 'date', 'Nullable(Date32)', ['2026-11-01', 'infinity', '0044-03-15 BC', '1900-01-01', null]],
    [
      'ts',
      'timestamp without time zone',
      "Nullable(DateTime64(6, 'UTC'))",
      ['2026-11-01 12:34:56.7', '-infinity', '1899-12-31 23:59:59', '2299-12-31 23:59:59.999999', null],
    ],
    [
      'tz',
      'timestamp with time zone',
      "Nullable(DateTime64(6, 'UTC'))",
      ['2026-11-01 12:34:56+00', 'infinity', '10000-01-01 00:00:00+00', '1900-01-01 00:00:00+00', null],
    ],
    [
      'u',
      'uuid',
      'Nullable(UUID)',
      ['6f6f6f6f-0000-4000-8000-00000000000f', '00000000-0000-0000-0000-000000000000', null, null, null],
    ],
    ['b', 'boolean', 'Nullable(Bool)', ['t', 'f', null, null, null]],
    ['raw', 'bytea', 'Nullable(String)', ['\\x00ff0a5c', '\\x', null, null, null]],
    [
      'ints',
      'integer[]',
      'Array(Nullable(Int32))',
      ['{1,NULL,3}', '{}', '{{1,2},{3,4}}', '[0:1]={1,2}', null],
    ],
    [
      'texts',
      'text[]',
      'Array(Nullable(String))',
      ['{a,"b\'c","",NULL,"NULL","a\\\\b\\"c"}', '{}', '{"x,y"}', '{"\t\n"}', null],
    ],
    ['flags', 'boolean[]', 'Array(Nullable(Bool))', ['{t,f,NULL}', '{}', null, null, null]],
    ['span', 'interval', 'Nullable(String)', ['1 mon 2 days 03:04:05', '-00:00:01', null, null, null]],
  ];

  it('hold every value as Postgres prints it, natively where ClickHouse can', async () => {
    const options = server.place();
    const sink = await openClickHouse(options);
    const severity: ColumnShape = {
      name: 'sev',
      type: 'app.severity',
      key: false,
      nullable: true,
      enum: { schema: 'app', name: 'severity', labels: ['low', 'high'] },
    };
    const table = shape('app', 'typed', [
      'id integer key',
      ...columns.map(([name, type]) => `${name} ${type}`),
      severity,
    ]);
    const rows: Row[] = [0, 1, 2, 3, 4].map((i) => [
      String(i),
      ...columns.map(([, , , values]) => values[i]!),
      i === 0 ? 'high' : null,
    ]);
    const states = rows.map((row) => ({ ...upsert(table, row), position: at(1) }));
    await sink.mergeWindow(windowOf(1, [mergeTable(table, { states })], { unit: 'app.typed' }));
    expect(sorted(await readAll(sink, table, at(1)))).toEqual(sorted(rows));
    const types = await server.query(
      `SELECT name, type FROM system.columns WHERE database = '${options['clickhouse.database']}' AND table = 'app.typed' AND name NOT IN ('id', '_exact')`,
    );
    expect(types).toEqual([
      ...columns.map(([name, , type]) => [name, type]),
      ['sev', 'LowCardinality(Nullable(String))'],
    ]);
    // What a column cannot hold is NULL there, and its text in `_exact`.
    const [exact] = await server.query(
      `SELECT n, _exact['n'], ints, _exact['ints'], day, _exact['day'] FROM ${view(options, 'app.typed')} WHERE id = 1`,
    );
    expect(exact).toEqual([null, 'NaN', '[]', null, null, 'infinity']);
    await sink.close();
  });
});

describe('a text column that is said to have few values', () => {
  it('is LowCardinality, and stays so whatever the option says later', async () => {
    const options = server.place();
    const few = await openClickHouse({ ...options, 'low.cardinality': ['app.users.name'] });
    await few.mergeWindow(windowOf(1, [named(1, 3, 'first')], unit));
    await few.close();
    const plain = await openClickHouse({ ...options, 'low.cardinality': ['app.users.bio'] });
    await plain.mergeWindow(windowOf(2, [named(2, 4, 'second')], { ...unit, fencingToken: 2n }));
    const more: TableShape = {
      ...users,
      columns: [...users.columns, { name: 'more', type: 'text', key: false, nullable: true }],
    };
    const states = [{ ...upsert(more, ['1', 'third', null, 'm']), position: at(3) }];
    await plain.mergeWindow(windowOf(3, [mergeTable(more, { states })], { ...unit, fencingToken: 2n }));
    expect(
      await server.query(`SELECT name, toTypeName(name), toTypeName(bio) FROM ${view(options)} WHERE id = 1`),
    ).toEqual([['third', 'LowCardinality(Nullable(String))', 'Nullable(String)']]);
    await plain.close();
  });
});

describe('a change of shape', () => {
  const integers = shape('app', 'shaped', ['id integer key', 'n integer']);
  const merge = (sink: MergeSink, n: number, table: TableShape, row: Row) =>
    sink.mergeWindow(
      windowOf(n, [mergeTable(table, { states: [{ ...upsert(table, row), position: at(n) }] })], {
        unit: 'app.shaped',
      }),
    );

  it('casts what is there, or is TM405 and leaves everything as it was', async () => {
    const options = server.place();
    const sink = await openClickHouse(options);
    await merge(sink, 1, integers, ['1', '7']);
    const decimals = shape('app', 'shaped', ['id integer key', 'n numeric(10,2)']);
    await merge(sink, 2, decimals, ['2', '8.25']);
    expect(sorted(await readAll(sink, decimals, at(2)))).toEqual(
      sorted([
        ['1', '7.00'],
        ['2', '8.25'],
      ]),
    );
    const refused = await failure(
      merge(sink, 3, shape('app', 'shaped', ['id integer key', 'n integer']), ['3', '9']),
    );
    expect(refused.code).toBe('TM405');
    expect(refused.message).toContain('"n" went from numeric(10,2) to integer');
    expect(sorted(await readAll(sink, decimals, at(2)))).toEqual(
      sorted([
        ['1', '7.00'],
        ['2', '8.25'],
      ]),
    );
    const texts = shape('app', 'shaped', ['id integer key', 'n text']);
    await merge(sink, 3, texts, ['3', 'nine']);
    expect(sorted(await readAll(sink, texts, at(3)))).toEqual(
      sorted([
        ['1', '7.00'],
        ['2', '8.25'],
        ['3', 'nine'],
      ]),
    );
    await sink.close();
  });
});

describe('names', () => {
  it('that would confuse a query are told apart', async () => {
    const options = server.place();
    const sink = await openClickHouse(options);
    const names = [
      'c1',
      'c2',
      '_kind',
      't',
      't.c1',
      'a.b',
      'a',
      'a.null',
      '_version',
      '_exact',
      '`"\\\'',
      'Überschrift',
    ];
    const table = shape('app', 'strange', [
      'c2x integer key',
      ...names.map(
        (name): ColumnShape => ({
          name,
          type: name === 'a.b' ? 'integer[]' : 'text',
          key: false,
          nullable: true,
        }),
      ),
    ]);
    const row = ['1', ...names.map((name) => (name === 'a.b' ? '{1,2}' : `value of ${name}`))];
    await sink.mergeWindow(
      windowOf(1, [mergeTable(table, { states: [{ ...upsert(table, row), position: at(1) }] })], {
        unit: 'app.strange',
      }),
    );
    const [seen] = await server.query(`SELECT * FROM ${view(options, 'app.strange')}`);
    expect(seen!.slice(0, row.length)).toEqual(row.map((text) => (text === '{1,2}' ? '[1,2]' : text)));
    expect(await readAll(sink, table, at(1))).toEqual([row]);
    await sink.close();
  });

  it('of something else are TM405 with what to do', async () => {
    const options = server.place();
    const database = options['clickhouse.database'];
    await server.query(`CREATE DATABASE ${database}`);
    await server.query(`CREATE TABLE ${view(options)} (id UInt8) ENGINE = MergeTree ORDER BY id`);
    const sink = await openClickHouse(options);
    const refused = await failure(sink.mergeWindow(windowOf(1, [named(1, 1, 'x')], unit)));
    expect(refused.code).toBe('TM405');
    expect(refused.remedy).toContain('RENAME TABLE');
    await sink.close();
  });
});

describe('history', () => {
  it('has every Change up to the last Window once, and none of one that is not committed', async () => {
    const options = server.place({ history: true });
    let stop = false;
    const sink = await openClickHouse(options, {
      failpoint: async (name) => {
        if (stop && name === 'clickhouse-sink-before-commit') throw new Error('stopped');
      },
    });
    const event = (n: number, op: RowEvent['op'], values: RowEvent['values']): RowEvent => ({
      op,
      position: at(n),
      commitTimeUs: 1_700_000_000_123_456n,
      key: ['1'],
      values,
      previousKey: null,
      before: null,
    });
    const table = (n: number, op: RowEvent['op'], values: RowEvent['values']): MergeTable =>
      mergeTable(users, {
        states: [{ ...upsert(users, ['1', `v${n}`, 'b']), position: at(n) }],
        events: [event(n, op, values)],
      });
    await sink.mergeWindow(windowOf(1, [table(1, 'c', ['1', 'v1', null])], unit));
    stop = true;
    const second = windowOf(2, [table(2, 'u', ['1', 'v2', undefined])], unit);
    await failure(sink.mergeWindow(second));
    const seen = () =>
      server.query(
        `SELECT op, position, toString(commit_time), values['name'], mapContains(values, 'bio'), unchanged FROM ${view(options, 'app.users_changes')} ORDER BY position`,
      );
    const first = ['c', at(1), '2023-11-14 22:13:20.123456', 'v1', '1', '[]'];
    expect(await seen()).toEqual([first]);
    stop = false;
    await sink.mergeWindow(second);
    expect(await seen()).toEqual([first, ['u', at(2), '2023-11-14 22:13:20.123456', 'v2', '0', "['bio']"]]);
    await sink.close();
  });

  it('never takes the place of a table that is called so, when it is turned on later', async () => {
    const options = server.place();
    const plain = await openClickHouse(options);
    const namesake: TableShape = { ...users, name: 'users_changes' };
    const own = { unit: 'app.users_changes' };
    const row = { states: [{ ...upsert(namesake, ['1', 'kept', null]), position: at(1) }] };
    await plain.mergeWindow(windowOf(1, [named(1, 1, 'one')], unit));
    await plain.mergeWindow(windowOf(1, [mergeTable(namesake, row)], own));
    await plain.close();
    const sink = await openClickHouse({ ...options, history: true });
    const refused = await failure(sink.mergeWindow(windowOf(2, [named(2, 1, 'two')], unit)));
    expect(refused).toMatchObject({ code: 'TM405', message: expect.stringContaining('users_changes') });
    expect(await sink.held(own.unit)).toMatchObject({ sequence: 1 });
    const seen = await server.query(`SELECT name FROM ${view(options, 'app.users_changes')}`);
    expect(seen).toEqual([['kept']]);
    await sink.close();
  });
});

describe('tidemark check', () => {
  it('tries out what a merge needs, and says what is missing', async () => {
    const options = server.place();
    expect(await clickhouseSink.check(context(), options)).toEqual([
      { level: 'ok', what: expect.stringContaining('26.9'), remedy: null },
    ]);
    const [refused] = await clickhouseSink.check(context(), { ...options, 'clickhouse.password': 'wrong' });
    expect(refused).toMatchObject({ level: 'error', what: expect.stringMatching(/^TM402/) });
    await server.query('CREATE DATABASE memory_only ENGINE = Memory');
    const [unfit] = await clickhouseSink.check(context(), {
      ...options,
      'clickhouse.database': 'memory_only',
    });
    expect(unfit).toMatchObject({ level: 'error', what: expect.stringContaining('Memory') });
  });
});
