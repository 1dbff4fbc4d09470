/** Quarantine in the ledger: which rows of a Unit are withheld from its destination, why, and what becomes of them. */
import type { Pool, PoolClient } from 'pg';
import type { Position } from '../../connector/position.ts';
import { controlError, inTransaction } from '../../platform/control.ts';
import { TidemarkError } from '../../platform/errors.ts';
import { lockUnit, type OwnedUnit, type UnitName } from '../ledger.ts';

/** A row that is withheld, as the worker needs it. */
export interface WithheldRow {
  id: number;
  topic: string;
  key: Buffer;
  state: 'held' | 'replaying' | 'dropped';
  bound: boolean;
  /** Where it was refused first. */
  position: Position;
  /** Of the last Window from which it was withheld for what that one brings. */
  sequence: number;
}

export interface RowToWithhold {
  topic: string;
  /** `schema.table` */
  table: string;
  key: Buffer;
  reason: string;
  position: Position;
  bound: boolean;
}

export interface QuarantinedChange {
  topic: string;
  key: Buffer;
  position: Position;
  /** In the dead-letter topic. */
  offset: number;
  bytes: number;
}

/** An entry as commands show it. */
export interface QuarantineEntry {
  id: number;
  destination: string;
  unit: string;
  table: string;
  state: 'held' | 'replaying' | 'replayed' | 'dropped' | 'superseded';
  reason: string;
  position: string;
  /** Changes of the row that wait, and their bytes. */
  changes: number;
  bytes: number;
  quarantinedAt: Date;
  changedAt: Date;
}

/** Names a row of a Unit. */
export function rowId({ topic, key }: { topic: string; key: Buffer }): string {
  return `${topic}/${key.toString('base64')}`;
}

export class QuarantineLedger {
  readonly #pool: Pool;

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  /** Everything that is withheld from the Unit's destination at present. @throws TidemarkError TM409 */
  async active({ sourceId, destination, unit }: UnitName): Promise<WithheldRow[]> {
    const rows = await this.#query<WithheldRow>(
      `select id::int as id, topic, key, state, bound, position, sequence::float8 as sequence from tidemark.quarantine
       where source_id = $1 and destination = $2 and unit = $3 and state in ('held', 'replaying', 'dropped')
       order by id`,
      [sourceId, destination, unit],
    );
    return rows;
  }

  /**
   * Rows that are withheld from now on, and Changes that wait with them or with rows withheld before. Again: no effect.
   * @throws TidemarkError TM403, TM409; TM412 when the Unit has more than `most` then
   */
  async withhold(
    unit: OwnedUnit,
    sequence: number,
    rows: readonly RowToWithhold[],
    changes: readonly QuarantinedChange[],
    most: number,
  ): Promise<void> {
    await inTransaction(this.#pool, async (client) => {
      await lockUnit(client, unit);
      const name = [unit.sourceId, unit.destination, unit.unit];
      for (const row of rows) {
        await client.query(
          `insert into tidemark.quarantine as q (source_id, destination, unit, table_name, topic, key, bound, reason, position, sequence)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
           on conflict (source_id, destination, unit, topic, key) where state in ('held', 'replaying', 'dropped') do update
             set bound = q.bound or excluded.bound, changed_at = now(), sequence = excluded.sequence,
               state = case when q.state = 'dropped' then 'held' else q.state end`,
          [...name, row.table, row.topic, row.key, row.bound, row.reason, row.position, sequence],
        );
      }
      await refuseTooMany(client, unit, most);
      if (changes.length === 0) return;
      await client.query(
        `insert into tidemark.quarantined_changes (quarantine_id, position, record_offset, bytes)
         select q.id, c.position, c.record_offset, c.bytes
           from unnest($4::text[], $5::bytea[], $6::text[], $7::bigint[], $8::bigint[])
                as c (topic, key, position, record_offset, bytes)
           join tidemark.quarantine q on q.source_id = $1 and q.destination = $2 and q.unit = $3
             and q.topic = c.topic and q.key = c.key and q.state in ('held', 'replaying')
         on conflict do nothing`,
        [
          ...name,
          changes.map(({ topic }) => topic),
          changes.map(({ key }) => key),
          changes.map(({ position }) => position),
          changes.map(({ offset }) => offset),
          changes.map(({ bytes }) => bytes),
        ],
      );
    });
  }

  /** Positions of a row's Changes that wait already. @throws TidemarkError TM409 */
  async waiting(ids: readonly number[]): Promise<Map<number, Set<string>>> {
    const rows = await this.#query<{ id: number; position: string }>(
      `select quarantine_id::int as id, position from tidemark.quarantined_changes where quarantine_id = any ($1)`,
      [ids],
    );
    const found = new Map<number, Set<string>>();
    for (const { id, position } of rows) found.set(id, (found.get(id) ?? new Set()).add(position));
    return found;
  }

  /** Where the Changes of entries are, by Position. @throws TidemarkError TM409 */
  async changesOf(ids: readonly number[]): Promise<{ id: number; position: Position; offset: number }[]> {
    return this.#query(
      `select quarantine_id::int as id, position, record_offset::float8 as offset
       from tidemark.quarantined_changes where quarantine_id = any ($1) order by position`,
      [ids],
    );
  }

  /** Entries that a replay met and the destination refused again: they go on being withheld. @throws TidemarkError TM403 */
  async refusedAgain(
    unit: OwnedUnit,
    sequence: number,
    refused: readonly { id: number; reason: string }[],
  ): Promise<void> {
    await inTransaction(this.#pool, async (client) => {
      await lockUnit(client, unit);
      for (const { id, reason } of refused)
        await client.query(
          `update tidemark.quarantine set state = 'held', reason = $2, changed_at = now() where id = $1 and state = 'replaying'`,
          [id, reason],
        );
      await client.query(
        `update tidemark.deliveries set replays = array(select unnest(replays) except select unnest($5::bigint[]))
         where source_id = $1 and destination = $2 and unit = $3 and sequence = $4`,
        [unit.sourceId, unit.destination, unit.unit, sequence, refused.map(({ id }) => id)],
      );
    });
  }

  /** Newest first. @throws TidemarkError TM409 */
  async list(
    sourceId: string,
    { destination, all }: { destination: string | null; all: boolean },
  ): Promise<QuarantineEntry[]> {
    return this.#query<QuarantineEntry>(
      `${shown} where q.source_id = $1 and ($2::text is null or q.destination = $2)
         and ($3 or q.state in ('held', 'replaying', 'dropped')) group by q.id order by q.id desc`,
      [sourceId, destination, all],
    );
  }

  /**
   * What somebody wants done with entries: those that are held are replayed or dropped, dropped ones may be replayed
   * after all.
   * @returns ids of the entries that follow the wish
   * @throws TidemarkError TM409
   */
  async ask(sourceId: string, ids: readonly number[], wish: 'replaying' | 'dropped'): Promise<number[]> {
    const rows = await this.#query<{ id: number }>(
      `update tidemark.quarantine set state = $3, changed_at = now()
       where source_id = $1 and id = any ($2) and state in ('held', 'replaying', 'dropped') returning id::int as id`,
      [sourceId, ids, wish],
    );
    return rows.map(({ id }) => id);
  }

  async #query<Row extends object>(sql: string, values: unknown[]): Promise<Row[]> {
    try {
      return (await this.#pool.query<Row>(sql, values)).rows;
    } catch (error) {
      throw controlError(error);
    }
  }
}

const shown = `select q.id::int as id, q.destination, q.unit, q.table_name as "table", q.state, q.reason, q.position,
    count(c.*)::int as changes, coalesce(sum(c.bytes), 0)::float8 as bytes,
    q.quarantined_at as "quarantinedAt", q.changed_at as "changedAt"
  from tidemark.quarantine q left join tidemark.quarantined_changes c on c.quarantine_id = q.id`;

async function refuseTooMany(client: PoolClient, unit: OwnedUnit, most: number): Promise<void> {
  const { rows } = await client.query<{ count: number }>(
    `select count(*)::int as count from tidemark.quarantine
     where source_id = $1 and destination = $2 and unit = $3 and state in ('held', 'replaying')`,
    [unit.sourceId, unit.destination, unit.unit],
  );
  const { count } = rows[0]!;
  if (count <= most) return;
  throw new TidemarkError(
    'TM412',
    `${unit.destination} refused ${count} rows of ${unit.unit}; ${most} may be in Quarantine`,
  );
}
