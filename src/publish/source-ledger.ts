/** The reader's rows in the control database: which epoch the source is in, and what the reader last said. */
import type { Pool } from 'pg';
import { controlError } from '../platform/control.ts';
import type { TidemarkError } from '../platform/errors.ts';
import type { PublishedTables } from '../replicate/publication-gap.ts';
import type { SourceIdentity } from '../replicate/source.ts';

export interface SourceRow {
  systemIdentifier: string;
  timeline: number;
  slot: string;
  epoch: number;
  /** creating: the slot may exist, but no origin Progress of this epoch; streaming: Progress must exist in Kafka. */
  state: 'creating' | 'streaming';
  /** The slot was made for this epoch: as long as nothing was streamed from it, it may be made anew. */
  madeSlot: boolean;
}

export class SourceLedger {
  readonly #pool: Pool;
  readonly #sourceId: string;

  constructor(pool: Pool, sourceId: string) {
    this.#pool = pool;
    this.#sourceId = sourceId;
  }

  async read(): Promise<SourceRow | null> {
    const [row] = await this.#query<SourceRow>(
      `select system_identifier as "systemIdentifier", timeline, slot, epoch, state, made_slot as "madeSlot"
         from tidemark.sources where source_id = $1`,
      [],
    );
    return row ?? null;
  }

  /** Before the slot is made: the next start knows that it may find a slot without Progress. */
  async beginEpoch(epoch: number, slot: string, identity: SourceIdentity, madeSlot = false): Promise<void> {
    await this.#query(
      `insert into tidemark.sources (source_id, system_identifier, timeline, slot, epoch, state, made_slot)
       values ($1, $2, $3, $4, $5, 'creating', $6)
       on conflict (source_id) do update set system_identifier = $2, timeline = $3, slot = $4, epoch = $5,
              state = 'creating', made_slot = $6, published = null, publication_gap = null, changed_at = now()`,
      [identity.systemIdentifier, identity.timeline, slot, epoch, madeSlot],
    );
  }

  /** After the epoch's origin Progress is in Kafka. */
  async beginStreaming(): Promise<void> {
    await this.#query(
      `update tidemark.sources set state = 'streaming', changed_at = now() where source_id = $1`,
      [],
    );
  }

  /** Progress in Kafka is the truth; this row follows it. */
  async followProgress(epoch: number, slot: string, identity: SourceIdentity): Promise<void> {
    await this.#query(
      `insert into tidemark.sources (source_id, system_identifier, timeline, slot, epoch, state)
       values ($1, $2, $3, $4, $5, 'streaming')
       on conflict (source_id) do update set system_identifier = $2, timeline = $3, slot = $4, epoch = $5,
              state = 'streaming', changed_at = now()`,
      [identity.systemIdentifier, identity.timeline, slot, epoch],
    );
  }

  /** What is published, and by table of what changes may be missing. */
  async readPublished(): Promise<{ published: PublishedTables | null; gap: Record<string, string> | null }> {
    const [row] = await this.#query<{
      published: PublishedTables | null;
      gap: Record<string, string> | null;
    }>(`select published, publication_gap as gap from tidemark.sources where source_id = $1`, []);
    return row ?? { published: null, gap: null };
  }

  async rememberPublished(published: PublishedTables): Promise<void> {
    await this.#query(`update tidemark.sources set published = $2 where source_id = $1`, [
      JSON.stringify(published),
    ]);
  }

  /** Partitions whose rows come through the stream or were asked for, by oid; null: nobody has looked yet. */
  async readPartitions(): Promise<number[] | null> {
    const [row] = await this.#query<{ partitions: number[] | null }>(
      `select partitions from tidemark.sources where source_id = $1`,
      [],
    );
    return row?.partitions ?? null;
  }

  async rememberPartitions(partitions: readonly number[]): Promise<void> {
    await this.#query(`update tidemark.sources set partitions = $2 where source_id = $1`, [
      JSON.stringify(partitions),
    ]);
  }

  /** Kept until the source's next epoch: putting the publication back does not bring changes back. */
  async rememberGap(gap: Record<string, string>): Promise<void> {
    await this.#query(
      `update tidemark.sources set publication_gap = coalesce(publication_gap, '{}') || $2::jsonb where source_id = $1`,
      [JSON.stringify(gap)],
    );
  }

  /** Null: the reader works. */
  async report(error: TidemarkError | null): Promise<void> {
    await this.#query(
      `update tidemark.sources set error_code = $2, error = $3, remedy = $4, seen_at = now() where source_id = $1`,
      [error?.code ?? null, error?.message ?? null, error?.remedy ?? null],
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
