/** What sinks on object stores share, as far as it needs no store; and the lines of the jsonl sink. */
import { describe, expect, it } from 'vitest';
import { ChangeRows } from '../../connectors/object-log/change-row.ts';
import { compactionFrom } from '../../connectors/object-log/compaction-options.ts';
import { assignFields, storedColumns } from '../../connectors/object-log/fields.ts';
import type { LiveFile } from '../../connectors/object-log/generations.ts';
import { planMerges } from '../../connectors/object-log/merge-plan.ts';
import { dateColumn, eventDate } from '../../connectors/object-log/partition.ts';
import { JsonLines, jsonStorageOf } from '../../connectors/sinks/jsonl/json-line.ts';
import { formatPosition } from '../../src/connector/position.ts';
import type { ColumnShape, TableShape } from '../../src/connector/shape.ts';
import type { RowEvent } from '../../src/connector/sink.ts';

function shape(...columns: [name: string, type: string, more?: Partial<ColumnShape>][]): TableShape {
  const all = columns.map(([name, type, more]) => ({ name, type, key: false, nullable: true, ...more }));
  const keyColumns = all.flatMap(({ key }, index) => (key ? [index] : []));
  return { schema: 'app', name: 't', columns: all, keyColumns, tenantColumn: null };
}
const key = { key: true };

describe('the date of a partition', () => {
  const timed = shape(
    ['id', 'bigint', key],
    ['note', 'date'],
    ['seen', 'timestamp(3) with time zone', key],
    ['day', 'app.day', { key: true, base: 'date' }],
  );
  it.each([
    ['auto', 2],
    ['day', 3],
    ['commit', null],
    // Not in the key: an update that does not show it could not be put with its row.
    ['note', null],
    ['id', null],
    ['nowhere', null],
  ])('%s is that of column %s', (choice, expected) => {
    expect(dateColumn(timed, choice)).toBe(expected);
  });

  it('is not that of a column whose values are hashed, or carried as text', () => {
    const hashed = shape(['at', 'text', { key: true, protection: { policy: 'hash', of: 'date' } }]);
    expect(dateColumn(hashed, 'auto')).toBeNull();
    expect(dateColumn(shape(['at', 'date', { key: true, form: 'text' }]), 'auto')).toBeNull();
  });

  it.each([
    ['2026-11-24 23:59:59.999999+00', '2026-11-24'],
    ['0001-01-01', '0001-01-01'],
    ['infinity', '__HIVE_DEFAULT_PARTITION__'],
    ['-infinity', '__HIVE_DEFAULT_PARTITION__'],
    ['0044-03-15 BC', '__HIVE_DEFAULT_PARTITION__'],
    ['0044-03-15 12:00:00+00 BC', '__HIVE_DEFAULT_PARTITION__'],
    ['10000-01-01', '__HIVE_DEFAULT_PARTITION__'],
  ])('%s lies under %s', (value, expected) => {
    expect(eventDate(value)).toBe(expected);
  });
});

describe('which files are merged', () => {
  const file = (sequence: number, date: string, bytes: number, more: Partial<LiveFile> = {}): LiveFile => ({
    path: `data/tenant=a/date=${date}/${sequence}`,
    rows: 1,
    bytes,
    tenant: 'a',
    date,
    encoder: 'duckdb',
    from: formatPosition({ epoch: 1, lsn: BigInt(sequence), ordinal: 0 }),
    sequence,
    ...more,
  });
  const plan = (files: LiveFile[]) =>
    planMerges(files, 'duckdb', '2026-11-24', 3).map((batch) => batch.map(({ sequence }) => sequence));

  it('small ones of one closed partition and one writer, in order, where there are enough', () => {
    const closed = [4, 2, 3].map((n) => file(n, '2026-11-23', 100));
    expect(plan(closed)).toEqual([[2, 3, 4]]);
    expect(plan(closed.slice(1))).toEqual([]);
    expect(plan([5, 6, 7].map((n) => file(n, '2026-11-24', 100)))).toEqual([]);
    expect(plan([...closed.slice(1), file(9, '2026-11-22', 100)])).toEqual([]);
    expect(plan([...closed.slice(1), file(9, '2026-11-23', 100, { encoder: 'parquetjs' })])).toEqual([]);
    expect(plan([...closed.slice(1), file(9, '2026-11-23', 1 << 28)])).toEqual([]);
    const elsewhere = file(9, '2026-11-23', 100, { path: 'data/tenant=b/date=2026-11-23/9' });
    expect(plan([...closed.slice(1), elsewhere])).toEqual([]);
  });

  it('the oldest dates first, in bounded batches', () => {
    const old = [1, 2, 3].map((n) => file(n, '2026-11-01', 100));
    const large = [10, 11, 12, 13, 14].map((n) => file(n, '2026-11-20', 15 * 1024 * 1024));
    expect(plan([...large, ...old])).toEqual([
      [1, 2, 3],
      [10, 11, 12, 13],
    ]);
    const many = Array.from({ length: 1025 }, (_, n) => file(n, '2026-11-02', 1));
    expect(plan(many).map((batch) => batch.length)).toEqual([512, 512]);
  });

  it.each([-1, 1, 1.5, Number.NaN])('%s files is no number for it', (files) => {
    expect(() => compactionFrom({ 'compact.files': files })).toThrow('compact.files');
  });
});

describe('a line of JSON', () => {
  const table = shape(
    ['id', 'integer', key],
    ['2', 'bigint', key],
    ['open', 'boolean'],
    ['price', 'numeric(10,2)'],
    ['body', 'jsonb'],
    ['ratio', 'double precision'],
  );
  const columns = storedColumns(table, assignFields(table, []), jsonStorageOf);
  const rows = new ChangeRows(table, columns, { fits: () => true, dates: 'auto' }, null);
  const lines = new JsonLines(columns, table.keyColumns);
  const position = formatPosition({ epoch: 1, lsn: 255n, ordinal: 2 });
  const line = (event: Partial<RowEvent>): string => {
    const base = { op: 'c' as const, position, commitTimeUs: 1_795_500_000_000_001n, key: ['7', '9'] };
    return lines.line(rows.from({ ...base, values: [], previousKey: null, before: null, ...event }));
  };
  const head = (op: string) =>
    `{"op":"${op}","position":"00000001/00000000000000FF/0000000000000002","commit_time":"2026-11-24T06:00:00.000001Z"`;

  it('has numbers and booleans where nothing can be lost, and else Postgres’ text', () => {
    const values = ['7', '9', 't', '1.50', '{"a": 1.10}', 'NaN'];
    expect(line({ values })).toBe(
      `${head('c')},"key":{"id":7,"2":"9"},"row":{"id":7,"2":"9","open":true,"price":"1.50","body":"{\\"a\\": 1.10}","ratio":"NaN"}}\n`,
    );
  });

  it('names unchanged columns and leaves them out; a NULL is there', () => {
    expect(line({ op: 'u', values: ['7', '9', null, undefined, undefined, '-0'] })).toBe(
      `${head('u')},"key":{"id":7,"2":"9"},"row":{"id":7,"2":"9","open":null,"ratio":"-0"},"unchanged":["price","body"]}\n`,
    );
  });

  it('has the key of a delete and of a row that was let go of, and the old one of a key change', () => {
    expect(line({ op: 'd' })).toBe(`${head('d')},"key":{"id":7,"2":"9"},"row":{"id":7,"2":"9"}}\n`);
    expect(line({ op: 'e' })).toBe(`${head('e')},"key":{"id":7,"2":"9"},"row":{"id":7,"2":"9"}}\n`);
    expect(line({ values: ['7', '9', 'f', null, null, null], previousKey: ['1', '2'] })).toContain(
      '"old_key":{"id":1,"2":"2"}',
    );
  });

  it('has no row where the table is meant', () => {
    expect(line({ op: 't', key: [] })).toBe(`${head('t')}}\n`);
    expect(line({ op: 's', key: [], since: position })).toBe(`${head('s')},"since":"${position}"}\n`);
  });
});
