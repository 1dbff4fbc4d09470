/** A made-up history of a table, and the table it leaves, kept by a model that shares no code with the sink. */
import type { TableShape } from '../../src/connector/shape.ts';
import type { Cell, Row, RowEvent } from '../../src/connector/sink.ts';
import { at, column, commitTime, type seeded, shapeOf } from './parquet-harness.ts';

type Random = ReturnType<typeof seeded>;

/** Values as Postgres prints them, per column: plain ones, the edges of the native type and what lies outside. */
const pools: Record<string, readonly Cell[]> = {
  tenant: ['acme', 'a/../b', '__none__', '', 'ü=?%', '..', 'x'.repeat(300), 'A', 'a'],
  body: [
    null,
    '',
    'short',
    'quote \' and " and \\',
    'line\nbreak\r\n\ttab\u2028\u2029\u0001',
    '\u{1F600}',
    'long '.repeat(3000),
  ],
  payload: [null, '{}', '{"a": [1, 2, null], "b": "ü"}', `{"x": "${'y'.repeat(4000)}"}`],
  price: [null, '0.00', '-0.01', '99999999.99', 'NaN', '12.50'],
  huge: [null, '12345678901234567890123456789012345678', '-1', 'NaN'],
  free: [null, '1e-30', '123456789.000', 'NaN', 'Infinity', '0.000000000000000000000000000000001'],
  seen: [
    null,
    '2026-11-24 02:20:00.123456+00',
    '2026-11-24 02:20:00.1+00',
    '1969-12-31 23:59:59.999999+00',
    '0044-03-15 12:00:00+00 BC',
    'infinity',
    '-infinity',
    '20000-01-01 00:00:00+00',
    '0001-01-01 00:00:00+00',
  ],
  local: [null, '2026-01-01 00:00:00', '9999-12-31 23:59:59.999999', 'infinity', '0001-01-01 00:00:00 BC'],
  day: [null, '2026-02-28', '1969-07-20', '0044-03-15 BC', 'infinity', '-infinity', '12345-01-01'],
  score: [
    null,
    '0',
    '-0',
    '1e+20',
    '1e-05',
    'NaN',
    'Infinity',
    '-Infinity',
    '5e-324',
    '3.0557209192185992e+16',
  ],
  ratio: [null, '0.1', '1e+06', '999999', 'NaN', '-Infinity', '227195.12', '3.4028235e+38'],
  count: [null, '9223372036854775807', '-9223372036854775808', '0', '9007199254740993'],
  small: [null, '-32768', '32767'],
  flag: [null, 't', 'f'],
  ref: [null, '00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-4fff-bfff-ffffffffffff'],
  raw: [null, '\\x', '\\x00ff10', `\\x${'ab'.repeat(3000)}`],
  tags: [null, '{}', '{a,"b c",NULL,"\\"q\\""}', '[2:3]={x,y}'],
  span: [null, '1 mon -3 days +04:05:06.7', '00:00:00'],
};

const valueColumns = [
  column('body', 'text'),
  column('payload', 'jsonb'),
  column('price', 'numeric(10,2)'),
  column('huge', 'numeric(38,0)'),
  column('free', 'numeric'),
  column('seen', 'timestamp with time zone'),
  column('local', 'timestamp(6) without time zone'),
  column('day', 'date'),
  column('score', 'double precision'),
  column('ratio', 'real'),
  column('count', 'bigint'),
  column('small', 'smallint'),
  column('flag', 'boolean'),
  column('ref', 'uuid'),
  column('raw', 'bytea'),
  column('tags', 'text[]'),
  column('span', 'interval'),
];

/** Columns that Postgres may store out of line, so that an update can leave them out. */
const toastable = new Set(['body', 'payload', 'free', 'raw', 'tags', 'huge', 'price']);

export const keyedShape = shapeOf(
  'findings',
  [column('id', 'integer', true), column('tenant', 'text', true), ...valueColumns],
  'tenant',
);
export const keylessShape = shapeOf('audit', [column('n', 'integer'), ...valueColumns]);

export interface Slice {
  /** Exclusive and inclusive LSN. */
  bounds: [number, number];
  events: RowEvent[];
  /** The table at the end of the slice. */
  rows: Row[];
}

function randomRow(random: Random, shape: TableShape, key: Cell[]): Row {
  return shape.columns.map(({ name }, index) =>
    index < key.length ? key[index]! : random.pick(pools[name]!),
  );
}

/** Slices of a keyed table's history: inserts, partial updates, key changes, deletes, truncates. */
export function keyedHistory(random: Random, slices: number, perSlice: number): Slice[] {
  const shape = keyedShape;
  const table = new Map<string, Row>();
  const made: Slice[] = [];
  let lsn = 0;
  const newKey = (): Cell[] => [String(random.below(40)), random.pick(pools.tenant!)];
  const partial = (row: Row, old: Row) =>
    row.map((cell, index) => {
      const keep = toastable.has(shape.columns[index]!.name) && random.below(2) === 0;
      if (!keep) return cell;
      row[index] = old[index]!;
      return undefined;
    });
  for (let number = 0; number < slices; number += 1) {
    const from = lsn;
    const events: RowEvent[] = [];
    for (let change = 0; change < perSlice; change += 1) {
      lsn += 1;
      const base = { position: at(lsn, 1), commitTimeUs: commitTime(lsn), previousKey: null, before: null };
      const dice = random.below(1000);
      const old = table.size > 0 ? random.pick([...table.values()]) : undefined;
      const oldKey = old?.slice(0, 2);
      if (dice < 4) {
        table.clear();
        events.push({ ...base, op: 't', key: [], values: [] });
      } else if (old === undefined || dice < 250) {
        const key = newKey();
        if (table.has(JSON.stringify(key))) continue;
        const values = randomRow(random, shape, key);
        table.set(JSON.stringify(key), values);
        events.push({ ...base, op: 'c', key, values });
      } else if (dice < 650) {
        const row = randomRow(random, shape, oldKey!);
        const values = partial(row, old);
        table.set(JSON.stringify(oldKey), row);
        events.push({ ...base, op: 'u', key: oldKey!, values });
      } else if (dice < 830) {
        const key = newKey();
        if (table.has(JSON.stringify(key))) continue;
        const row = randomRow(random, shape, key);
        const values = partial(row, old);
        table.delete(JSON.stringify(oldKey));
        table.set(JSON.stringify(key), row);
        const shown = shape.columns.map((_, index) => (index < 2 ? old[index] : undefined));
        events.push({ ...base, op: 'd', key: oldKey!, values: shown });
        // One Change or two ordinals: both spellings of "delete and create" must work.
        const position = random.below(2) === 0 ? base.position : at(lsn, 2);
        events.push({ ...base, position, op: 'c', key, values, previousKey: oldKey! });
      } else {
        table.delete(JSON.stringify(oldKey));
        const shown = shape.columns.map((_, index) => (index < 2 ? old[index] : undefined));
        events.push({ ...base, op: 'd', key: oldKey!, values: shown });
      }
    }
    made.push({ bounds: [from, lsn + 1], events, rows: [...table.values()].map((row) => [...row]) });
    lsn += 1;
  }
  return made;
}

/** The same for a table without a key, whose rows repeat. */
export function keylessHistory(random: Random, slices: number, perSlice: number): Slice[] {
  const shape = keylessShape;
  let table: Row[] = [];
  const made: Slice[] = [];
  let lsn = 0;
  for (let number = 0; number < slices; number += 1) {
    const from = lsn;
    const events: RowEvent[] = [];
    for (let change = 0; change < perSlice; change += 1) {
      lsn += 1;
      const base = { position: at(lsn, 1), commitTimeUs: commitTime(lsn), key: [], previousKey: null };
      const dice = random.below(1000);
      const place = random.below(Math.max(1, table.length));
      const old = table[place];
      if (dice < 4) {
        table = [];
        events.push({ ...base, op: 't', values: [], before: null });
      } else if (old === undefined || dice < 450) {
        const repeat = old !== undefined && random.below(3) === 0;
        const values = repeat ? [...old] : randomRow(random, shape, [String(random.below(5))]);
        table.push(values);
        events.push({ ...base, op: 'c', values, before: null });
      } else if (dice < 750) {
        const row = randomRow(random, shape, [String(random.below(5))]);
        const values = row.map((cell, index) => {
          if (index === 0 || random.below(3) > 0) return cell;
          row[index] = old[index]!;
          return undefined;
        });
        table[place] = row;
        events.push({ ...base, op: 'u', values, before: [...old] });
      } else {
        table.splice(place, 1);
        const both = random.below(2) === 0;
        events.push({ ...base, op: 'd', values: [...old], before: both ? [...old] : null });
      }
    }
    made.push({ bounds: [from, lsn + 1], events, rows: table.map((row) => [...row]) });
    lsn += 1;
  }
  return made;
}
