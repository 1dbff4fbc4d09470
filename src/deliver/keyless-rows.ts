/** Whole rows of a table without a key: where an update leaves columns untouched, its old row has them. */
import type { Cell, PartialRow, Row } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { RowReader, ShapedChange } from './row-schemas.ts';

export function newRow({ before, after }: ShapedChange, reader: RowReader): Row {
  return fillUnchanged(after!, before, reader);
}

/** The whole row after an update, where the old one is whole (replica identity full). */
export function fillUnchanged(after: PartialRow, before: Row | null, reader: RowReader): Row {
  return after.map((cell, i): Cell => (cell === undefined ? oldRow(before, reader)[i]! : cell));
}

/** @throws TidemarkError TM407 where there is none */
export function oldRow(before: Row | null, { shape }: RowReader): Row {
  if (before) return before;
  throw new TidemarkError('TM407', `an update or delete in ${shape.schema}.${shape.name} has no old row`, {
    remedy: `Run \`alter table ${shape.schema}.${shape.name} replica identity full\`, or give it a primary key; then rebuild it.`,
  });
}
