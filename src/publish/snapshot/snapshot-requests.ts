/** Snapshots as the control database has them: what was asked for, and what `status` shows. */
import { randomUUID } from 'node:crypto';
import type { Pool } from 'pg';
import { controlError } from '../../platform/control.ts';
import type { TidemarkError } from '../../platform/errors.ts';

export type SnapshotRequestState = 'requested' | 'running' | 'paused' | 'done' | 'cancelled' | 'failed';

export interface SnapshotRequest {
  id: string;
  /** `schema.name` */
  table: string;
  kind: 'initial' | 'ad-hoc';
  condition: string | null;
  /** Whom it is for; null: all. */
  destination: string | null;
  state: SnapshotRequestState;
  waitsFor: string | null;
  rows: number;
  estimatedRows: number | null;
  rereads: number;
  requestedAt: Date;
  startedAt: Date | null;
  finishedAt: Date | null;
  updatedAt: Date;
  problem: { code: string; error: string; remedy: string } | null;
}

const openStates = `('requested', 'running', 'paused')`;

const columns = `id, table_name as "table", kind, condition, destination, state, waits_for as "waitsFor", rows::float8 as rows,
  estimated_rows::float8 as "estimatedRows", rereads::float8 as rereads, requested_at as "requestedAt",
  started_at as "startedAt", finished_at as "finishedAt", updated_at as "updatedAt",
  case when error_code is not null then json_build_object('code', error_code, 'error', error, 'remedy', remedy) end as problem`;

export class SnapshotRequests {
  readonly #pool: Pool;
  readonly #sourceId: string;

  constructor(pool: Pool, sourceId: string) {
    this.#pool = pool;
    this.#sourceId = sourceId;
  }

  /** Asks for the tables that have no initial snapshot in this epoch yet. Those of earlier epochs are of no use. */
  async requestInitial(epoch: number, tables: readonly string[]): Promise<void> {
    await this.#query(
      `update tidemark.snapshots set state = 'cancelled', finished_at = now(), waits_for = null
        where source_id = $1 and epoch < $2 and state in ${openStates}`,
      [epoch],
    );
    for (const table of tables) {
      await this.#query(
        `insert into tidemark.snapshots (source_id, table_name, id, kind, epoch)
         select $1, $2, $3, 'initial', $4
          where not exists (select 1 from tidemark.snapshots
                             where source_id = $1 and table_name = $2 and state in ${openStates})
         on conflict do nothing`,
        [table, randomUUID(), epoch],
      );
    }
  }

  /** Asks for tables that were made anew under a name whose table was read in this epoch: that one had other rows. */
  async requestAnew(epoch: number, tables: readonly string[]): Promise<void> {
    for (const table of tables) await this.request(epoch, table, { condition: null, destination: null });
  }

  /** The epoch before goes on in this one: its snapshots are of use. */
  async carryOver(epoch: number): Promise<void> {
    await this.#query('update tidemark.snapshots set epoch = $2 where source_id = $1 and epoch = $2 - 1', [
      epoch,
    ]);
  }

  /** @returns the new request's id, or null where a snapshot of the table is open */
  async request(
    epoch: number,
    table: string,
    { condition, destination }: Pick<SnapshotRequest, 'condition' | 'destination'>,
  ): Promise<string | null> {
    const id = randomUUID();
    const rows = await this.#query(
      `insert into tidemark.snapshots (source_id, table_name, id, kind, epoch, condition, destination)
       values ($1, $2, $3, 'ad-hoc', $4, $5, $6) on conflict do nothing returning id`,
      [table, id, epoch, condition, destination],
    );
    return rows.length > 0 ? id : null;
  }

  /**
   * Of rows that nobody asked to be read: shown as what failed, to be asked for, and nothing of the table is evicted until
   * it was read.
   */
  async missed(
    epoch: number,
    table: string,
    condition: string | null,
    { code, message, remedy }: TidemarkError,
  ): Promise<void> {
    await this.#query(
      `insert into tidemark.snapshots (source_id, table_name, id, kind, epoch, condition, state, finished_at, error_code, error, remedy)
       values ($1, $2, $3, 'ad-hoc', $4, $5, 'failed', now(), $6, $7, $8)`,
      [table, randomUUID(), epoch, condition, code, message, remedy],
    );
  }

  /** Oldest first. */
  open(): Promise<SnapshotRequest[]> {
    return this.#query<SnapshotRequest>(
      `select ${columns} from tidemark.snapshots where source_id = $1 and state in ${openStates}
        order by requested_at, table_name`,
      [],
    );
  }

  /** The newest of every table. */
  newest(): Promise<SnapshotRequest[]> {
    return this.#query<SnapshotRequest>(
      `select distinct on (table_name) ${columns} from tidemark.snapshots where source_id = $1
        order by table_name, requested_at desc`,
      [],
    );
  }

  /** @returns how many tables' snapshots changed to it. @param table null: all of them */
  async move(
    table: string | null,
    from: readonly SnapshotRequestState[],
    to: SnapshotRequestState,
  ): Promise<number> {
    const over = to === 'cancelled';
    const rows = await this.#query(
      `update tidemark.snapshots set state = $4, updated_at = now(), waits_for = null,
              finished_at = case when $5 then now() end
        where source_id = $1 and ($2::text is null or table_name = $2) and state = any ($3) returning 1`,
      [table, from, to, over],
    );
    return rows.length;
  }

  async started(id: string, estimatedRows: number | null): Promise<void> {
    await this.#query(
      `update tidemark.snapshots set state = 'running', started_at = coalesce(started_at, now()), updated_at = now(),
              estimated_rows = coalesce($3, estimated_rows)
        where source_id = $1 and id = $2 and state in ('requested', 'running')`,
      [id, estimatedRows],
    );
  }

  async progressed(id: string, rows: bigint, rereads: number, waitsFor: string | null): Promise<void> {
    await this.#query(
      `update tidemark.snapshots set rows = $3, rereads = rereads + $4, waits_for = $5, updated_at = now()
        where source_id = $1 and id = $2 and state in ('requested', 'running')`,
      [id, String(rows), rereads, waitsFor],
    );
  }

  async finished(id: string, rows: bigint): Promise<void> {
    await this.#query(
      `update tidemark.snapshots set state = 'done', rows = $3, waits_for = null, finished_at = now(), updated_at = now()
        where source_id = $1 and id = $2 and state in ${openStates}`,
      [id, String(rows)],
    );
  }

  async failed(id: string, { code, message, remedy }: TidemarkError): Promise<void> {
    await this.#query(
      `update tidemark.snapshots set state = 'failed', error_code = $3, error = $4, remedy = $5, waits_for = null,
              finished_at = now(), updated_at = now()
        where source_id = $1 and id = $2 and state in ${openStates}`,
      [id, code, message, remedy],
    );
  }

  async #query<T extends object>(sql: string, values: unknown[]): Promise<T[]> {
    try {
      return (await this.#pool.query<T>(sql, [this.#sourceId, ...values])).rows;
    } catch (error) {
      throw controlError(error);
    }
  }
}
