/** Tables that most cases use, and a Window's worth of everything in them. */
import type { ColumnShape, TableShape } from '../../src/connector/shape.ts';
import type { Row } from '../../src/connector/sink.ts';
import type { KeyedTable } from './keyed-table.ts';
import type { KeylessTable } from './keyless-table.ts';
import type { Source } from './source.ts';
import { planted } from './witness.ts';

/** @param columns as `name type` or `name type key`; numbered from 1 on */
export function shapeOf(
  name: string,
  columns: readonly (string | ColumnShape)[],
  more: Partial<TableShape> = {},
): TableShape {
  const list = columns.map((column, i): ColumnShape => {
    if (typeof column !== 'string') return column;
    const [, columnName, type, key] = /^(\S+) (.*?)( key)?$/.exec(column)!;
    return columnOf(columnName!, type!, i + 1, key !== undefined);
  });
  const keyColumns = list.flatMap(({ key }, i) => (key ? [i] : []));
  return { schema: 'app', name, columns: list, keyColumns, tenantColumn: null, oid: 16_400, ...more };
}

export function columnOf(name: string, type: string, number: number, key = false): ColumnShape {
  return { name, type, key, nullable: !key, number };
}

export const users = shapeOf('users', ['id bigint key', 'name text', 'bio text', 'score numeric(10,2)']);

/** Whoever prints this row prints what was planted. */
export function user(id: number, version = 1): Row {
  const name = `${planted} of ${id}, version ${version}`;
  return [
    String(id),
    name,
    `bio ${'x'.repeat(40)} ${id}/${version}`,
    `${id}.${String(version % 100).padStart(2, '0')}`,
  ];
}

export function userRows(first: number, last: number): Row[] {
  return Array.from({ length: last - first + 1 }, (_, i) => user(first + i));
}

export const visits = shapeOf('visits', ['page text', 'seconds integer']);

export function visit(page: number): Row {
  return [`${planted} page ${page}`, page % 3 === 0 ? null : String(page)];
}

export interface Everything {
  users: KeyedTable;
  /** Null where the destination takes no tables without a key. */
  visits: KeylessTable | null;
}

export function everything(source: Source, { keyless = true } = {}): Everything {
  return { users: source.keyed(users), visits: keyless ? source.keyless(visits) : null };
}

/** The nth Window: inserts, updates whole and partial, a key change, deletes, copies. Needs those before it. */
export function change({ users, visits }: Everything, n: number): void {
  const first = n * 100;
  users.insert(...userRows(first, first + 20));
  visits?.insert(visit(n), visit(n), visit(n + 1));
  if (n === 1) return;
  const [old] = [first - 100];
  users.update([String(old + 1)], { name: `${planted} renamed in ${n}` }, { untouched: ['bio'] });
  users.update([String(old + 2)], { bio: null, score: '0.00' });
  users.move([String(old + 3)], { id: String(old + 50), score: '-1.50' }, { untouched: ['bio'] });
  users.delete([String(old + 4)]);
  visits?.update(visit(n - 1), visit(n));
  visits?.delete(visit(n));
}
