/** A table's rows as the view shows them, as Postgres' own text. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { TableShape } from '../../../src/connector/shape.ts';
import { pairColumns } from '../../../src/connector/shape-versions.ts';
import type { Position, Row } from '../../../src/connector/sink.ts';
import { rowOf } from './layout.ts';
import type { Unit } from './unit.ts';

/**
 * @param at Position that the caller keeps the Unit at
 * @param retired takes the rows that are marked as such; null: they are among the others
 * @throws TidemarkError TM408 where the destination is beyond `at`
 */
export async function* readRows(
  unit: Unit,
  shape: TableShape,
  at: Position,
  retired: ((rows: Row[]) => void) | null,
): AsyncGenerator<Row[]> {
  const visible = await unit.visible();
  // A table without a Change so far was not made yet: it has no rows.
  if (visible === null) return;
  const { mark, layout, rows } = visible;
  if (mark.position > at) {
    throw new TidemarkError(
      'TM408',
      `${unit.name}: holds Position ${mark.position}, beyond the requested ${at}`,
    );
  }
  const { kept } = pairColumns(layout.shape, shape);
  const stored = new Map(layout.columns.map((each) => [each.column, each]));
  const wanted = kept.map(([held]) => stored.get(held)!);
  const places = kept.map(([, column]) => shape.columns.indexOf(column));
  const missing: Row = shape.columns.map((column) => column.missing ?? null);
  const last = layout.keyed ? '_retired' : '_copies';
  const where = layout.keyed ? '' : ' AND _copies > 0';
  const select = `SELECT ${[...layout.selection(wanted), last].join(', ')} FROM ${unit.server.table(rows)} FINAL WHERE _kind = 0${where}`;
  for await (const batch of unit.server.stream(select, unit.name)) {
    let found: Row[] = [];
    for (const fields of batch) {
      const row = missing.slice();
      for (const [i, cell] of rowOf(wanted, fields).entries()) row[places[i]!] = cell;
      if (retired && layout.keyed && fields.at(-1) === '1') {
        retired([row]);
        continue;
      }
      for (let copy = layout.keyed ? 1 : Number(fields.at(-1)); copy > 0; copy--) {
        found.push(row);
        if (found.length < 8192) continue;
        yield found;
        found = [];
      }
    }
    if (found.length > 0) yield found;
  }
}
