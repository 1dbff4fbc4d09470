/** The Postgres sink's parts that need no server. */
import { describe, expect, test } from 'vitest';
import { asSinkFailure, SessionError } from '../../connectors/sinks/postgres/failures.ts';
import { resolveSettings } from '../../connectors/sinks/postgres/options.ts';
import { decideMerge } from '../../connectors/sinks/postgres/progress.ts';
import {
  hasCanonicalText,
  quoteName,
  quoteText,
  typeSchema,
  typeText,
} from '../../connectors/sinks/postgres/quote.ts';
import { decodeLine } from '../../connectors/sinks/postgres/read-back.ts';
import { copyLine, valuesRelation } from '../../connectors/sinks/postgres/stage.ts';
import type { TidemarkError } from '../../src/connector/failure.ts';
import { formatPosition } from '../../src/connector/position.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import type { MergeWindow, Receipt } from '../../src/connector/sink.ts';

const column = (type: string) => ({ name: 'c', type, key: false, nullable: true });
const table: TableShape = { schema: 's', name: 't', columns: [], keyColumns: [], tenantColumn: null };

describe('type names', () => {
  test.each([
    'integer',
    'double precision',
    'character varying',
    'character varying(10)',
    'bit varying(3)',
    'numeric(12,2)',
    'numeric(3,-2)',
    'timestamp with time zone',
    'timestamp(3) without time zone',
    'time(0) with time zone',
    'interval',
    'interval(3)',
    'interval day to second(3)',
    'interval year to month',
    '"char"',
    '"char"[]',
    'text[][]',
    'app.severity',
    '"We ird"."Ty""pe"[]',
    'public.geometry(Point,4326)',
    'public.citext',
    'serial_number',
    '"serial"',
  ])('%s is one', (type) => {
    expect(typeText(table, column(type))).toBe(type);
  });

  test.each([
    '',
    'serial',
    'bigserial[]',
    'serial4',
    'text default 1',
    'text); drop table x; --',
    'text, y int',
    'integer primary key',
    'int check(true)',
    'a.b.c',
    "text collate 'C'",
    'text\n',
    'Text',
    '"a',
    '"a"b',
    'numeric(1;2)',
    'text/**/',
    'text --',
    'interval day to',
    'timestamp with zone',
    'x%type',
    'setof text',
    'text[1]',
  ])('%j is none', (type) => {
    expect(() => typeText(table, column(type))).toThrow(expect.objectContaining({ code: 'TM405' }));
  });

  test('the schema of a type is read unquoted', () => {
    expect(typeSchema('public.citext')).toBe('public');
    expect(typeSchema('"a""b.c".x(1,2)[]')).toBe('a"b.c');
    expect(typeSchema('numeric(12,2)')).toBeNull();
    expect(typeSchema('"a.b"')).toBeNull();
  });

  test('only types whose text is their value skip the careful path', () => {
    expect(
      ['uuid', 'bigint', 'character varying(9)', 'text'].map((type) => hasCanonicalText(column(type))),
    ).toEqual(Array(4).fill(true));
    const careful = [
      'numeric',
      'numeric(5,2)',
      'interval',
      'character(3)',
      'public.citext',
      'text[]',
      'real',
    ];
    expect(careful.map((type) => hasCanonicalText(column(type)))).toEqual(Array(7).fill(false));
  });
});

test('names and literals cannot end early', () => {
  expect(quoteName('a"b')).toBe('"a""b"');
  expect(quoteText("a'b\\")).toBe("'a''b\\'");
  for (const name of ['', 'x\0', 'ü'.repeat(32)]) {
    expect(() => quoteName(name)).toThrow(expect.objectContaining({ code: 'TM405' }));
  }
  expect(quoteName('ü'.repeat(31))).toBe(`"${'ü'.repeat(31)}"`);
});

test('a row survives COPY’s text format', () => {
  const cells = ['', null, '\\N', '\\', '\t\n\r\\t', '\\.', 'plain', 'ü😀', '\b\f\v\u0001'];
  const shape = { ...table, columns: cells.map(() => column('text')) };
  const line = copyLine(cells);
  expect(line.split('\n').length).toBe(2);
  expect(decodeLine(line.slice(0, -1), shape)).toEqual(cells);
  expect(decodeLine('\\b\\f\\v', { ...shape, columns: [column('text')] })).toEqual(['\b\f\v']);
});

test('a VALUES list is typed by its first row', () => {
  const columns = [
    { name: 'k0', type: 'bigint' },
    { name: 'k1', type: 'text' },
  ];
  expect(
    valuesRelation('g', columns, [
      ['1', null],
      ['2', "'"],
    ]),
  ).toBe("(VALUES (CAST('1' AS bigint),CAST(NULL AS text)),\n('2','''')) AS g (k0, k1)");
});

describe('options', () => {
  test('the URL carries everything, single keys win', () => {
    const url = 'postgres://us%40er:p%2Fw@db.example:6543/my%20db?sslmode=require';
    const settings = resolveSettings({ 'connection.url': url, 'connection.database': 'other' });
    expect(settings).toMatchObject({
      host: 'db.example',
      port: 6543,
      user: 'us@er',
      password: 'p/w',
      database: 'other',
    });
    expect(settings.tls).toMatchObject({ rejectUnauthorized: false });
  });

  test('TLS is verified unless the server is on this machine', () => {
    const tls = (host: string) => resolveSettings({ 'connection.host': host, 'connection.user': 'u' }).tls;
    expect(tls('127.0.0.1')).toBe(false);
    expect(tls('/run/postgresql')).toBe(false);
    expect(tls('db.example')).toMatchObject({ rejectUnauthorized: true });
  });

  test.each([
    'not a url with secret',
    'http://u:secret@h/d',
    'postgres://u:secret@h/d?sslmode=prefer',
    'postgres://u:secret@h/d?x=1',
  ])('a wrong URL is TM101 and is not repeated', (url) => {
    const error = (() => {
      try {
        return resolveSettings({ 'connection.url': url });
      } catch (thrown) {
        return thrown as TidemarkError;
      }
    })() as TidemarkError;
    expect(error.code).toBe('TM101');
    expect(`${error.message}${error.remedy}`).not.toContain('secret');
  });
});

describe('failures', () => {
  const server = (code: string) =>
    Object.assign(new Error('has a value 4711'), {
      code,
      severity: 'ERROR',
      detail: 'Key (id)=(4711)',
      where: '4711',
      column: 'id',
    });

  test.each([
    ['08006', 'TM401'],
    ['57P01', 'TM401'],
    ['53100', 'TM401'],
    ['53300', 'TM401'],
    ['40001', 'TM401'],
    ['40P01', 'TM401'],
    ['55P03', 'TM401'],
    ['57014', 'TM401'],
    ['25006', 'TM401'],
    ['28P01', 'TM402'],
    ['3D000', 'TM402'],
    ['42501', 'TM402'],
    ['22P02', 'TM405'],
    ['23505', 'TM405'],
    ['21000', 'TM405'],
    ['42P01', 'TM405'],
    ['42704', 'TM405'],
    ['XX000', 'TM901'],
  ])('SQLSTATE %s is %s', (state, code) => {
    const error = asSinkFailure(new SessionError(server(state), 0), 'replica', [table]) as TidemarkError;
    expect(error.code).toBe(code);
    expect(error.message).toContain(state);
    expect(error.message).toContain('s.t');
    expect(`${error.stack}${JSON.stringify(error)}${(error.cause as Error).stack}`).not.toContain('4711');
  });

  test.each([
    ['ECONNREFUSED', 'TM401'],
    ['SELF_SIGNED_CERT_IN_CHAIN', 'TM402'],
    ['ERR_TLS_CERT_ALTNAME_INVALID', 'TM402'],
  ])('%s is %s', (code, expected) => {
    const error = asSinkFailure(new SessionError(Object.assign(new Error('x'), { code }), 0), 'replica');
    expect((error as TidemarkError).code).toBe(expected);
  });

  test('errors of others pass through', () => {
    const own = new Error('spill');
    expect(asSinkFailure(own, 'replica')).toBe(own);
  });
});

describe('which Window is merged', () => {
  const at = (n: number) => formatPosition({ epoch: 1, lsn: BigInt(n), ordinal: 0 });
  const receipt: Receipt = {
    position: at(5),
    rows: { upserted: 1, deleted: 0, appended: 0 },
    bytes: 1,
    contentHash: '0',
    commitId: '1',
    alreadyHeld: false,
  };
  const stored = { position: at(5), sequence: 5, fencingToken: 3n, receipt };
  const decide = (sequence: number, token = 3n, from = at(sequence - 1), to = at(sequence)) =>
    decideMerge(
      { destination: 'd', unit: '*', sequence, from, to, fencingToken: token } as MergeWindow,
      stored,
    );

  test('the next one', () => expect(decide(6)).toBeNull());
  test('the next one after Windows without records, which have no number', () =>
    expect(decide(6, 3n, at(6), at(7))).toBeNull());
  test('not one that is held, or covered by what is held', () => {
    expect(decide(5)).toEqual({ ...receipt, alreadyHeld: true });
    expect(decide(3)).toEqual({ ...receipt, alreadyHeld: true });
    expect(decide(5, 9n)).toEqual({ ...receipt, alreadyHeld: true });
  });
  test('none of a worker with an older token', () => {
    for (const sequence of [5, 6])
      expect(() => decide(sequence, 2n)).toThrow(expect.objectContaining({ code: 'TM403' }));
  });
  test.each([
    [7, at(6), at(7)],
    [6, at(4), at(6)],
    [5, at(4), at(6)],
  ])('none that leaves a gap or was decided twice', (sequence, from, to) => {
    expect(() => decide(sequence, 3n, from, to)).toThrow(expect.objectContaining({ code: 'TM404' }));
  });
});
