/** What the service did last with each table, in the control database: what `tidemark retain status` shows. */
import type { Pool } from 'pg';
import { controlError } from '../platform/control.ts';
import type { TidemarkError } from '../platform/errors.ts';

export interface TableRound {
  /** `schema.name` */
  table: string;
  /** Rows that are old enough and wait. */
  marked: number;
  markedAtMs: number | null;
  /** Position that destinations have to reach; null: none is known. */
  waitsFor: string | null;
  /** In this round. */
  evicted: number;
  /** Why rows that are old enough stay, by reason. */
  staying: Record<string, number>;
  /** Commit time that those have reached which the policy relies on, microseconds since 1970; null: nothing waits for them. */
  floorUs: number | null;
  /** Rows that came back, since the beginning; null: not counted. */
  recalled: number | null;
  /** Why nothing of the table goes; null: some may. */
  problem: { code: string; message: string; remedy: string } | null;
}

export function emptyRound(table: string, error: TidemarkError | null = null): TableRound {
  return {
    table,
    marked: 0,
    markedAtMs: null,
    waitsFor: null,
    evicted: 0,
    staying: {},
    floorUs: null,
    recalled: null,
    problem: error && { code: error.code, message: error.message, remedy: error.remedy },
  };
}

export async function recordRound(pool: Pool, sourceId: string, round: TableRound): Promise<void> {
  const { table, marked, markedAtMs, waitsFor, evicted, staying, problem } = round;
  try {
    await pool.query(
      `insert into tidemark.retention as r (source_id, table_name, looked_at, marked, marked_at, waits_for, evicted,
         last_evicted_at, staying, error_code, error, remedy)
       values ($1, $2, now(), $3, to_timestamp($4::double precision / 1000), $5, $6::bigint, case when $6::bigint > 0 then now() end, $7, $8, $9, $10)
       on conflict (source_id, table_name) do update set looked_at = now(), marked = excluded.marked,
         marked_at = excluded.marked_at, waits_for = excluded.waits_for, evicted = r.evicted + excluded.evicted,
         last_evicted_at = coalesce(excluded.last_evicted_at, r.last_evicted_at), staying = excluded.staying,
         error_code = excluded.error_code, error = excluded.error, remedy = excluded.remedy`,
      [
        sourceId,
        table,
        marked,
        markedAtMs,
        waitsFor,
        evicted,
        JSON.stringify(staying),
        problem?.code ?? null,
        problem?.message ?? null,
        problem?.remedy ?? null,
      ],
    );
  } catch (error) {
    throw controlError(error);
  }
}

/** Of tables that nothing is to go of any more, nothing waits, and nothing is the matter with them. */
export async function settleOthers(pool: Pool, sourceId: string, tables: readonly string[]): Promise<void> {
  try {
    await pool.query(
      `update tidemark.retention set marked = 0, marked_at = null, waits_for = null, staying = '{}', error_code = null,
         error = null, remedy = null
        where source_id = $1 and table_name <> all ($2) and (marked > 0 or staying <> '{}' or error_code is not null)`,
      [sourceId, tables],
    );
  } catch (error) {
    throw controlError(error);
  }
}

export interface RecordedRound extends Omit<TableRound, 'markedAtMs' | 'evicted' | 'floorUs' | 'recalled'> {
  lookedAt: Date;
  markedAt: Date | null;
  /** Since the beginning. */
  evicted: number;
  lastEvictedAt: Date | null;
}

/** By name. @throws TidemarkError TM409, TM415 */
export async function readRounds(pool: Pool, sourceId: string): Promise<RecordedRound[]> {
  try {
    const { rows } = await pool.query<RecordedRound>(
      `select table_name as "table", looked_at as "lookedAt", marked::float8 as marked, marked_at as "markedAt",
              waits_for as "waitsFor", evicted::float8 as evicted, last_evicted_at as "lastEvictedAt", staying,
              case when error_code is not null then json_build_object('code', error_code, 'message', error, 'remedy', remedy) end as problem
         from tidemark.retention where source_id = $1 order by 1`,
      [sourceId],
    );
    return rows;
  } catch (error) {
    throw controlError(error);
  }
}
