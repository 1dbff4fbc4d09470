/**
 * The delivery ledger: what workers write. Holds are in holds.ts, what operators do in pauses.ts. Every write of a Unit names its fencing token: a row that
 * does not answer to it belongs to another worker by now (TM403).
 */
import type { Pool, PoolClient } from 'pg';
import type { Position } from '../connector/position.ts';
import type { Receipt } from '../connector/sink.ts';
import { controlError, inTransaction } from '../platform/control.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { Cut, Mark } from './cut-window.ts';
import type { Offsets } from './offsets.ts';
import { settleQuarantine } from './quarantine/settle.ts';
import { noSnapshots, type WindowSnapshots } from './snapshot-list.ts';

export interface UnitName {
  sourceId: string;
  destination: string;
  /** `*`, or the table's part of the topic name. */
  unit: string;
}

/** A Unit as this worker owns it. */
export interface OwnedUnit extends UnitName {
  token: bigint;
  /** Null before the Unit's origin was recorded. */
  mark: Mark | null;
  /** End and number of the last Window handed to the destination. */
  merged: { position: Position; sequence: number } | null;
  open: OpenDelivery | null;
}

/** A Window that was decided and not recorded as delivered yet. */
export interface OpenDelivery extends Omit<Cut, 'records'> {
  sequence: number;
  snapshots: WindowSnapshots;
  /** Entries of Quarantine that it takes along; then it holds nothing else, and ends where it begins. */
  replays: readonly number[];
}

export interface RecordedFailure {
  code: string;
  message: string;
  remedy: string;
}

/** What the destination acknowledged, and how long it took. */
export interface Acknowledgement {
  receipt: Receipt;
  durationMs: number;
  /** Entries of Quarantine that it took along, and that it made unnecessary. */
  replayed: readonly number[];
  superseded: readonly number[];
  /** By topic: the last schema of what was in it. */
  schemaIds: Readonly<Record<string, number>>;
  /** Version of the credentials that it was written with; null: not known. */
  credentials: number | null;
}

interface UnitRow {
  token: string;
  mark: string | null;
  mark_time_us: string | null;
  merged_position: string | null;
  merged_sequence: string;
  mark_offsets: Offsets | null;
}

interface DeliveryRow {
  sequence: string;
  from_position: string;
  to_position: string;
  end_offsets: Offsets;
  mark_offsets: Offsets | null;
  commit_time_us: string;
  snapshots: WindowSnapshots | null;
  replays: string[] | null;
}

export class Ledger {
  readonly #pool: Pool;
  readonly #sourceId: string;

  constructor(pool: Pool, sourceId: string) {
    this.#pool = pool;
    this.#sourceId = sourceId;
  }

  /**
   * Makes the destination known, and takes an error of opening it back; a pause stays.
   * @param bound whose rows it keeps; null: it keeps none
   * @throws TidemarkError TM416 where it has rows of another tenant: from its mark on, nobody would miss those it never got
   */
  async registerDestination(
    destination: string,
    kind: string,
    bound: { tenant: string | null } | null = null,
  ): Promise<void> {
    const rows = await this.#query<{ bound: { tenant: string | null } | null }>(
      `insert into tidemark.destinations as d (source_id, destination, kind, bound) values ($1, $2, $3, $4::jsonb)
       on conflict (source_id, destination) do update set kind = excluded.kind, state = 'running',
         error_code = null, error = null, remedy = null, changed_at = now(),
         bound = case when d.bound is not null and exists (select from tidemark.units u
             where u.source_id = d.source_id and u.destination = d.destination and u.mark is not null)
           then d.bound else excluded.bound end
       returning bound`,
      [this.#sourceId, destination, kind, bound && JSON.stringify(bound)],
    );
    const before = rows[0]?.bound;
    if (!bound || !before || before.tenant === bound.tenant) return;
    const whose = ({ tenant }: { tenant: string | null }) =>
      tenant === null ? "everybody's rows" : `rows of tenant ${tenant}`;
    throw new TidemarkError(
      'TM416',
      `${destination} has ${whose(before)}, and is to get ${whose(bound)} now`,
    );
  }

  /**
   * The version of a destination's credentials: the one before where they are the same, else the next.
   * @param fingerprint see credentials.ts
   */
  async credentialsVersion(destination: string, fingerprint: string): Promise<number> {
    const rows = await this.#query<{ credentials: number }>(
      `update tidemark.destinations set credentials_fingerprint = $3, credentials_problem = null,
         credentials = credentials + case when credentials_fingerprint is distinct from $3 then 1 else 0 end
       where source_id = $1 and destination = $2 returning credentials`,
      [this.#sourceId, destination, fingerprint],
    );
    return rows[0]?.credentials ?? 0;
  }

  /** Newer credentials are there and not used, because the destination refuses them; null: all is well. */
  async recordCredentialsProblem(destination: string, problem: string | null): Promise<void> {
    await this.#query(
      'update tidemark.destinations set credentials_problem = $3 where source_id = $1 and destination = $2',
      [this.#sourceId, destination, problem],
    );
  }

  /** What keeps the whole destination from working; null: nothing any more. */
  async recordDestinationFailure(destination: string, failure: RecordedFailure | null): Promise<void> {
    await this.#query(
      `update tidemark.destinations set state = $3, error_code = $4, error = $5, remedy = $6, changed_at = now()
       where source_id = $1 and destination = $2`,
      [
        this.#sourceId,
        destination,
        failure ? 'failed' : 'running',
        failure?.code ?? null,
        failure?.message ?? null,
        failure?.remedy ?? null,
      ],
    );
  }

  /**
   * Takes the Unit over at once: Kafka's group protocol made us its owner, and the new token shuts the old one out.
   * @param owner names this worker, for status
   */
  async acquireUnit(destination: string, unit: string, owner: string): Promise<OwnedUnit> {
    const name = { sourceId: this.#sourceId, destination, unit };
    const rows = await this.#query<UnitRow>(
      `insert into tidemark.units (source_id, destination, unit, token, owner, owner_seen_at)
       values ($1, $2, $3, 1, $4, now())
       on conflict (source_id, destination, unit) do update
         set token = units.token + 1, owner = excluded.owner, owner_seen_at = now()
       returning ${unitColumns}`,
      [...key(name), owner],
    );
    return this.#ownedUnit(name, rows[0]!);
  }

  /** The Unit as the ledger has it now. @throws TidemarkError TM403 when the token is not ours any more */
  async refreshUnit(unit: OwnedUnit): Promise<OwnedUnit> {
    const rows = await this.#query<UnitRow>(
      `update tidemark.units set owner_seen_at = now() where ${ownUnit} returning ${unitColumns}`,
      [...key(unit), unit.token],
    );
    if (rows.length === 0) throw fenced(unit);
    return this.#ownedUnit(unit, rows[0]!);
  }

  /**
   * Writes a Window's bounds down before the first byte of it is written.
   * @returns null when a hold or a pause forbids it by now
   * @throws TidemarkError TM403
   */
  async decideWindow(
    unit: OwnedUnit,
    cut: Cut,
    snapshots: WindowSnapshots,
    replays: readonly number[] = [],
  ): Promise<OpenDelivery | null> {
    return inTransaction(this.#pool, async (client) => {
      const sequence = await lockUnit(client, unit);
      if (await heldBack(client, unit, cut)) return null;
      const delivery = { ...cut, snapshots, replays, sequence: sequence + 1 };
      await client.query(
        `insert into tidemark.deliveries (source_id, destination, unit, sequence, from_position, to_position,
           end_offsets, mark_offsets, commit_time_us, token, snapshots, replays)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
        [
          ...key(unit),
          delivery.sequence,
          cut.from,
          cut.to,
          JSON.stringify(cut.ingestOffsets),
          cut.markOffsets === cut.ingestOffsets ? null : JSON.stringify(cut.markOffsets),
          cut.commitTimeUs,
          unit.token,
          snapshots.open.length + snapshots.ended.length > 0 ? JSON.stringify(snapshots) : null,
          replays.length > 0 ? replays : null,
        ],
      );
      return delivery;
    });
  }

  /** Whether another attempt at an open Window may begin: not when the destination is paused. @throws TidemarkError TM403 */
  async mayAttempt(unit: OwnedUnit): Promise<boolean> {
    return inTransaction(this.#pool, async (client) => {
      await lockUnit(client, unit);
      const { rows } = await client.query(
        'select from tidemark.destinations where source_id = $1 and destination = $2 and paused_at is not null',
        [unit.sourceId, unit.destination],
      );
      return rows.length === 0;
    });
  }

  /** Stores the Receipt and moves the mark, in one transaction. @throws TidemarkError TM403 */
  async recordDelivery(
    unit: OwnedUnit,
    delivery: OpenDelivery,
    { receipt, durationMs, replayed, superseded, schemaIds, credentials }: Acknowledgement,
  ): Promise<OwnedUnit> {
    await inTransaction(this.#pool, async (client) => {
      await lockUnit(client, unit);
      const { rowCount } = await client.query(
        `update tidemark.deliveries set state = 'delivered', delivered_at = now(), receipt = $5, error_code = null,
           error = null, remedy = null, next_attempt_at = null, attempts = attempts + 1, token = $6, duration_ms = $7, credentials = $8,
           mark_offsets = case when $9::jsonb = end_offsets then mark_offsets else $9::jsonb end
         where source_id = $1 and destination = $2 and unit = $3 and sequence = $4 and state = 'decided'`,
        [
          ...key(unit),
          delivery.sequence,
          JSON.stringify(receipt),
          unit.token,
          Math.round(durationMs),
          credentials,
          JSON.stringify(delivery.markOffsets),
        ],
      );
      if (rowCount !== 1)
        throw new TidemarkError('TM901', `delivery ${delivery.sequence} of ${unit.unit} is not open`);
      await client.query(
        `update tidemark.units set mark = $5, mark_time_us = $6, merged_position = $5, merged_sequence = $7,
           mark_offsets = $8, schema_ids = coalesce(schema_ids, '{}') || $9, ${allWell} where ${ownUnit}`,
        [
          ...key(unit),
          unit.token,
          delivery.to,
          delivery.commitTimeUs,
          delivery.sequence,
          JSON.stringify(delivery.markOffsets),
          JSON.stringify(schemaIds),
        ],
      );
      await settleQuarantine(client, { replayed, superseded });
    });
    return {
      ...unit,
      mark: { position: delivery.to, commitTimeUs: delivery.commitTimeUs, offsets: delivery.markOffsets },
      merged: { position: delivery.to, sequence: delivery.sequence },
      open: null,
    };
  }

  /**
   * Moves the mark over a stretch without anything to deliver. Also how a new Unit gets its origin.
   * @returns null when a hold or a pause forbids it by now
   * @throws TidemarkError TM403
   */
  async advanceEmpty(unit: OwnedUnit, mark: Mark): Promise<OwnedUnit | null> {
    return inTransaction(this.#pool, async (client) => {
      await lockUnit(client, unit);
      if (unit.mark && (await heldBack(client, unit, { from: unit.mark.position, to: mark.position })))
        return null;
      await client.query(
        `update tidemark.units set mark = $5, mark_time_us = $6, mark_offsets = $7, ${allWell} where ${ownUnit}`,
        [...key(unit), unit.token, mark.position, mark.commitTimeUs, JSON.stringify(mark.offsets)],
      );
      return { ...unit, mark };
    });
  }

  /** By topic: the schemas of what was delivered last. @throws TidemarkError TM409 */
  async schemaIds(unit: UnitName): Promise<Record<string, number>> {
    const rows = await this.#query<{ schema_ids: Record<string, number> | null }>(
      'select schema_ids from tidemark.units where source_id = $1 and destination = $2 and unit = $3',
      key(unit),
    );
    return rows[0]?.schema_ids ?? {};
  }

  /** Tells status that the owner of Units lives. */
  async touchUnits(owner: string): Promise<void> {
    await this.#query('update tidemark.units set owner_seen_at = now() where source_id = $1 and owner = $2', [
      this.#sourceId,
      owner,
    ]);
  }

  /** Takes a shown error back: what failed went through, without a Window to record. @throws TidemarkError TM403 */
  async clearFailure(unit: OwnedUnit): Promise<void> {
    const rows = await this.#query(`update tidemark.units set ${allWell} where ${ownUnit} returning 1`, [
      ...key(unit),
      unit.token,
    ]);
    if (rows.length === 0) throw fenced(unit);
  }

  /**
   * Shows an error at the Unit, and at its open delivery where it has one.
   * @param retryInMs until the next attempt
   * @returns for how long the Unit has failed by now, milliseconds
   * @throws TidemarkError TM403
   */
  async recordFailure(unit: OwnedUnit, failure: RecordedFailure, retryInMs: number): Promise<number> {
    return inTransaction(this.#pool, async (client) => {
      await lockUnit(client, unit);
      const shown = [failure.code, failure.message, failure.remedy, retryInMs];
      const { rows } = await client.query<{ failing_ms: string }>(
        `update tidemark.units set error_code = $5, error = $6, remedy = $7, error_at = now(), owner_seen_at = now(),
           failing_since = coalesce(failing_since, now()), failures = failures + 1,
           next_attempt_at = now() + $8 * interval '1 millisecond'
         where ${ownUnit} returning extract(epoch from now() - failing_since) * 1000 as failing_ms`,
        [...key(unit), unit.token, ...shown],
      );
      await client.query(
        `update tidemark.deliveries set attempts = attempts + 1, error_code = $4, error = $5, remedy = $6,
           next_attempt_at = now() + $7 * interval '1 millisecond'
         where source_id = $1 and destination = $2 and unit = $3 and state = 'decided'`,
        [...key(unit), ...shown],
      );
      return Number(rows[0]!.failing_ms);
    });
  }

  async #ownedUnit(name: UnitName, row: UnitRow): Promise<OwnedUnit> {
    const rows = await this.#query<DeliveryRow>(
      `select sequence, from_position, to_position, end_offsets, mark_offsets, commit_time_us, snapshots, replays
       from tidemark.deliveries where source_id = $1 and destination = $2 and unit = $3 and state = 'decided'`,
      key(name),
    );
    const open = rows[0];
    return {
      sourceId: name.sourceId,
      destination: name.destination,
      unit: name.unit,
      token: BigInt(row.token),
      mark:
        row.mark === null
          ? null
          : {
              position: row.mark as Position,
              commitTimeUs: BigInt(row.mark_time_us ?? 0),
              offsets: row.mark_offsets ?? {},
            },
      merged:
        row.merged_position === null
          ? null
          : { position: row.merged_position as Position, sequence: Number(row.merged_sequence) },
      open: open
        ? {
            sequence: Number(open.sequence),
            from: open.from_position as Position,
            to: open.to_position as Position,
            ingestOffsets: open.end_offsets,
            markOffsets: open.mark_offsets ?? open.end_offsets,
            commitTimeUs: BigInt(open.commit_time_us),
            snapshots: open.snapshots ?? noSnapshots,
            replays: (open.replays ?? []).map(Number),
          }
        : null,
    };
  }

  async #query<Row extends object>(sql: string, values: unknown[]): Promise<Row[]> {
    try {
      return (await this.#pool.query<Row>(sql, values)).rows;
    } catch (error) {
      throw controlError(error);
    }
  }
}

const unitColumns = 'token, mark, mark_time_us, merged_position, merged_sequence, mark_offsets';
/** Assignments of a Unit whose last attempt went through. */
const allWell = `owner_seen_at = now(), error_code = null, error = null, remedy = null, error_at = null,
  failing_since = null, failures = 0, next_attempt_at = null`;
const ownUnit = 'source_id = $1 and destination = $2 and unit = $3 and token = $4';

function key({ sourceId, destination, unit }: UnitName): string[] {
  return [sourceId, destination, unit];
}

/**
 * Locks the Unit's row, so that a hold requested meanwhile waits for this transaction or is seen by it.
 * @returns the number of the last Window merged
 */
export async function lockUnit(client: PoolClient, unit: OwnedUnit): Promise<number> {
  const { rows } = await client.query<{ merged_sequence: string }>(
    `select merged_sequence from tidemark.units where ${ownUnit} for update`,
    [...key(unit), unit.token],
  );
  if (rows.length === 0) throw fenced(unit);
  return Number(rows[0]!.merged_sequence);
}

async function heldBack(
  client: PoolClient,
  { sourceId, destination }: UnitName,
  { from, to }: Pick<Cut, 'from' | 'to'>,
): Promise<boolean> {
  const { rows } = await client.query(
    `select from tidemark.holds where source_id = $1 and destination = $2 and expires_at > now()
       and (target is null or target < $3 or (target = $3 and $4))
     union all
     select from tidemark.destinations where source_id = $1 and destination = $2 and paused_at is not null`,
    // One that changes what is held at the target itself: rows come out of Quarantine.
    [sourceId, destination, to, from === to],
  );
  return rows.length > 0;
}

function fenced({ destination, unit }: UnitName): TidemarkError {
  return new TidemarkError('TM403', `another worker took over ${unit} of ${destination}`);
}
