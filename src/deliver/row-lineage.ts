/**
 * Key changes that leave TOASTed columns unchanged: the new row takes those values from the row under its old key,
 * as that was just before. This finds, for every such create, the Changes of its former keys inside the Window that
 * it builds on, level by level (a row may change its key several times), in DuckDB, so that memory stays flat
 * when a million rows change their keys at once.
 */
import type { DuckDBConnection, DuckDBValue } from '@duckdb/node-api';
import type { Position } from '../connector/position.ts';
import { blob, changeColumnsOf, streamRows } from './spilled-columns.ts';
import type { SpilledRows } from './spilled-rows.ts';
import type { StoredChange } from './stored-change.ts';

/** A Change of a former key, or (change null) only the name of the key that the destination must supply. */
export interface LineageStep {
  /** The create that this belongs to. */
  targetKey: Buffer;
  targetPosition: Position;
  /** The key the row had during this step. */
  sourceKey: Buffer;
  /** Nothing in the Window says what the row was when it got this far: the destination's row is the base. */
  fromDestination: boolean;
  change: StoredChange | null;
}

/** A Change after which a key's state does not depend on its earlier Changes, except through a former key. */
const isAnchor = '(not r.partial or r.old_key is not null)';

/**
 * Steps ordered by target key, target Position, and then from the oldest key to the newest, in Position order.
 * @param connection of the caller's own; temporary tables are left on it
 * @param rows FROM item with the table's rows of the Window
 */
export async function* rowLineage(
  store: SpilledRows,
  connection: DuckDBConnection,
  rows: string,
): AsyncIterable<LineageStep[]> {
  await connection.run(`
    create or replace temp table lineage (target_key blob, target_position varchar, depth integer,
      source_key blob, source_end varchar, start varchar, next_key blob, next_end varchar)`);
  await connection.run(`
    create or replace temp table level as
      select key as target_key, position as target_position, old_key as source_key, old_key_end as source_end
      from ${rows} where old_key is not null and partial`);
  for (let depth = 1; ; depth++) {
    // The last anchor before the row left this key; where that is again such a create, its own old key comes next.
    await connection.run(`
      insert into lineage
      with anchored as (
        select l.target_key, l.target_position, l.source_key, l.source_end, max(r.position) as start
        from level l left join ${rows} r on r.key = l.source_key and r.position < l.source_end and ${isAnchor}
        group by l.target_key, l.target_position, l.source_key, l.source_end)
      select a.target_key, a.target_position, ${depth}, a.source_key, a.source_end, a.start, n.old_key, n.old_key_end
      from anchored a left join ${rows} n
        on n.key = a.source_key and n.position = a.start and n.partial`);
    await connection.run(`
      create or replace temp table level as
        select target_key, target_position, next_key as source_key, next_end as source_end
        from lineage where depth = ${depth} and next_key is not null`);
    const [row] = await (await connection.run('select count(*)::integer from level')).getRows();
    if (row![0] === 0) break;
  }
  yield* streamRows(
    connection,
    `select ${changeColumnsOf('r')}, l.target_key, l.target_position, l.source_key, l.start is null
     from lineage l left join ${rows} r
       on r.key = l.source_key and r.position < l.source_end and r.position >= coalesce(l.start, '')
     order by l.target_key, l.target_position, l.depth desc, r.position`,
    (values, row) => readStep(store, values, row),
  );
}

function readStep(store: SpilledRows, values: DuckDBValue[][], row: number): LineageStep {
  return {
    targetKey: blob(values[12]![row]!)!,
    targetPosition: values[13]![row] as Position,
    sourceKey: blob(values[14]![row]!)!,
    fromDestination: values[15]![row] as boolean,
    change: values[1]![row] === null ? null : store.storedChange(values, row),
  };
}
