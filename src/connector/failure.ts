/** The errors a connector throws, and their codes: the manual is platform/errors.ts. */
import { TidemarkError } from '../platform/errors.ts';
import type { Position } from './position.ts';
import type { TableId } from './shape.ts';

export { asTidemarkError, describeCause, TidemarkError } from '../platform/errors.ts';

/** A Change that the destination refuses for what is in it, whenever it is sent. */
export interface RefusedRow {
  table: TableId;
  /** Of the Change, or of the last one that made the row's state. */
  position: Position;
  /** The destination's own code and what it means; never a value. */
  reason: string;
}

/**
 * The destination refuses these rows and would take the rest (TM410). They go to Quarantine, and the Window is written
 * again without them; a sink that finds them one at a time names one at a time.
 */
export class RefusedRows extends TidemarkError {
  readonly rows: readonly RefusedRow[];

  /** @param rows at least one */
  constructor(rows: readonly RefusedRow[], options: { cause?: unknown } = {}) {
    const { table, reason } = rows[0]!;
    const more = rows.length > 1 ? ` and ${rows.length - 1} more` : '';
    super('TM410', `a row of ${table.schema}.${table.name} was refused (${reason})${more}`, options);
    this.rows = rows;
  }
}
