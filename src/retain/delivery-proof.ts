/**
 * Proof of delivery: what the ledger says of each destination that takes a table, and whether that is enough for a row.
 * A destination proves a row when its high-water mark has passed the mark of the row, nothing of the table was skipped on
 * the way, and the row is not in its Quarantine. One that skipped changes holds rows even where it is not required.
 */
import type { Pool } from 'pg';
import type { Position } from '../connector/position.ts';
import { tableName } from '../connector/shape.ts';
import type { Receipt, SinkKind } from '../connector/sink.ts';
import type { Offsets } from '../deliver/offsets.ts';
import { controlError } from '../platform/control.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { compileKeyDecoder } from '../publish/envelope-decoder.ts';
import { matchesPattern } from '../replicate/catalogue.ts';
import type { EvictableTable } from './evictable-table.ts';
import type { Policy } from './policies.ts';

export interface DeliveryMark {
  destination: string;
  unit: string;
  /** The one whose rows it gets; null: everybody's. */
  tenant: string | null;
  /** High-water mark; null: nothing was delivered yet. */
  mark: Position | null;
  /** Commit time there, microseconds since 1970. */
  markTimeUs: number | null;
  /** Of the newest Window that had something in it. */
  receipt: (Pick<Receipt, 'position' | 'commitId' | 'contentHash'> & { sequence: number }) | null;
  /** Keys of rows that it refused; null: not all of them can be read, so any row may be among them. */
  quarantined: ReadonlySet<string> | null;
  /** Changes were skipped, and the table was not read again since; or it is being sent back. */
  incomplete: boolean;
  /** What it got up to its mark is not what it is to get now: other tenants' rows, or none of this table. */
  otherRows: boolean;
  /** End and number of the last Window that was handed over, as the Unit has it. */
  merged: { position: Position; sequence: number } | null;
  /** The newest Window that was acknowledged, as the list of them has it: how far it read the topics. */
  last: { position: Position; sequence: number; ends: Offsets } | null;
  /** Why its mark is not believed (holders-word.ts); null: nothing speaks against it. */
  doubt: StayReason | null;
}

/** What of the registry is needed. */
export interface KeySchemas {
  versions(subject: string): Promise<{ schema: string }[]>;
}

interface MarkRow {
  mark: string | null;
  mark_time_us: string | null;
  merged_position: string | null;
  merged_sequence: string;
  sequence: string | null;
  to_position: string | null;
  end_offsets: Offsets | null;
  receipt: Receipt | null;
  incomplete: boolean;
  other_rows: boolean;
  keys: Buffer[] | null;
}

const markQuery = `
  select u.mark, u.mark_time_us, u.merged_position, u.merged_sequence, d.sequence, d.to_position, d.end_offsets, d.receipt,
         (select array_agg(q.key) from tidemark.quarantine q
           where q.source_id = u.source_id and q.destination = u.destination and q.unit = u.unit and q.topic = $4
             and q.state in ('held', 'replaying', 'dropped')) as keys,
         exists (select from tidemark.moves m
           where m.source_id = u.source_id and m.destination = u.destination and m.unit = u.unit
             and (m.done_at is null or m.kind = 'skip' and not exists (
               select from tidemark.snapshots s
                where s.source_id = m.source_id and s.table_name = $5 and s.state = 'done' and s.condition is null
                  and (s.destination is null or s.destination = m.destination)
                  and case when m.snapshots_before is null then s.requested_at > m.done_at
                      else s.id <> all (m.snapshots_before) end))) as incomplete,
         coalesce(not u.mark_offsets ? $4, false) or exists (select from tidemark.destinations b
           where b.source_id = u.source_id and b.destination = u.destination and b.bound ->> 'tenant' is distinct from $6::text
             and b.bound is not null) as other_rows
    from tidemark.units u
    left join lateral (select sequence, to_position, end_offsets, receipt from tidemark.deliveries
      where source_id = u.source_id and destination = u.destination and unit = u.unit and state = 'delivered'
      order by sequence desc limit 1) d on true
   where u.source_id = $1 and u.destination = $2 and u.unit = $3`;

/** Of every destination that takes the table and keeps rows, in the order of the configuration. @throws TidemarkError TM409, TM304 */
export async function deliveryMarks(
  table: EvictableTable,
  {
    pool,
    config,
    sinkKinds,
    registry,
  }: { pool: Pool; config: ResolvedConfig; sinkKinds: ReadonlyMap<string, SinkKind>; registry: KeySchemas },
): Promise<DeliveryMark[]> {
  const marks: DeliveryMark[] = [];
  for (const { name, kind: kindName, tables, tenant } of config.destinations) {
    const kind = sinkKinds.get(kindName);
    if (!kind || kind.keepsRows === false || !tables.some((pattern) => matchesPattern(pattern, table)))
      continue;
    const unit = kind.unit === 'destination' ? '*' : table.unit;
    const found = await askLedger(pool, [
      config.source.id,
      name,
      unit,
      table.topic,
      tableName(table),
      tenant,
    ]);
    marks.push({
      destination: name,
      unit,
      tenant,
      mark: (found?.mark ?? null) as Position | null,
      markTimeUs: found?.mark_time_us == null ? null : Number(found.mark_time_us),
      receipt: found?.receipt
        ? {
            position: found.receipt.position,
            commitId: found.receipt.commitId,
            contentHash: found.receipt.contentHash,
            sequence: Number(found.sequence),
          }
        : null,
      quarantined: await quarantinedKeys(found?.keys ?? [], table, registry),
      incomplete: found?.incomplete ?? false,
      otherRows: found?.other_rows ?? false,
      merged:
        found?.merged_position == null
          ? null
          : { position: found.merged_position as Position, sequence: Number(found.merged_sequence) },
      last: found?.sequence
        ? {
            position: found.to_position as Position,
            sequence: Number(found.sequence),
            ends: found.end_offsets!,
          }
        : null,
      doubt: null,
    });
  }
  return marks;
}

async function askLedger(pool: Pool, values: (string | null)[]): Promise<MarkRow | null> {
  try {
    return (await pool.query<MarkRow>(markQuery, values)).rows[0] ?? null;
  } catch (error) {
    throw controlError(error);
  }
}

/** A key's columns seldom change; where they did, one of the table's versions reads it. */
async function quarantinedKeys(
  keys: readonly Buffer[],
  { topic }: EvictableTable,
  registry: KeySchemas,
): Promise<Set<string> | null> {
  if (keys.length === 0) return new Set();
  const versions = await registry.versions(`${topic}-value`);
  const decoders = versions.map(({ schema }) => compileKeyDecoder(schema));
  const found = new Set<string>();
  for (const key of keys) {
    const texts = decoders.flatMap((decode) => {
      try {
        return JSON.stringify(decode(key, 0));
      } catch {
        return [];
      }
    });
    if (texts.length === 0) return null;
    for (const text of texts) found.add(text);
  }
  return found;
}

/** How far the destinations are that the policy relies on; null: one of them has nothing, or there is none. */
export function floorTimeUs(
  { required, destinations }: Pick<Policy, 'required' | 'destinations'>,
  marks: readonly DeliveryMark[],
): number | null {
  const wanted = marks.filter(
    ({ destination }) => required !== 'named' || destinations.includes(destination),
  );
  const times = wanted.map(({ markTimeUs, doubt }) =>
    doubt === 'destination fell back' ? null : markTimeUs,
  );
  const known = times.filter((time) => time !== null);
  if (known.length === 0 || (required !== 'any' && known.length < times.length)) return null;
  return required === 'any' ? Math.max(...known) : Math.min(...known);
}

/** @throws TidemarkError TM503 for a destination that the policy names and that is no proof of anything */
export function requireNamed({ policy }: EvictableTable, marks: readonly { destination: string }[]): void {
  if (policy.required !== 'named') return;
  const missing = policy.destinations.find((name) => !marks.some(({ destination }) => destination === name));
  if (missing === undefined) return;
  throw new TidemarkError(
    'TM503',
    `${tableName(policy)} is not evicted: its policy requires ${missing}, which does not keep rows of it`,
    { remedy: 'Correct the policy, or give the table to that destination.' },
  );
}

export interface Proof {
  /** Those that hold the row. */
  holders: DeliveryMark[];
  /** Those of them that the policy relies on. */
  relied: DeliveryMark[];
  /** Whether that is what the policy asks for. */
  enough: boolean;
  /** Under `any`: the one that is relied upon. */
  pinned: string | null;
  /** Why it is not enough, by destination; empty where there is none to wait for. */
  lacking: { destination: string; reason: StayReason }[];
}

/** Why a row that is old enough stays. */
export type StayReason =
  | 'not delivered yet'
  | 'in Quarantine'
  | 'changes were skipped'
  | 'destination fell back'
  | 'ledger is contradicted'
  | 'destination does not answer'
  | 'no destination takes it'
  | 'on hold'
  | 'changed since'
  | 'referred to'
  | 'table is parked'
  | 'partition not read yet'
  | 'snapshot under way';

/** @param passed Position up to which a destination must be */
export function proofOf(
  policy: Pick<Policy, 'required' | 'destinations'>,
  marks: readonly DeliveryMark[],
  row: { key: string; tenant: string | null },
  passed: Position,
): Proof {
  const covering = marks.filter(({ tenant }) => tenant === null || tenant === row.tenant);
  const states = covering.map((mark) => ({ mark, reason: reasonOf(mark, row.key, passed) }));
  const holders = states.filter(({ reason }) => reason === null).map(({ mark }) => mark);
  const holds = (name: string) => holders.some(({ destination }) => destination === name);
  const { required } = policy;
  const wanted = required === 'named' ? policy.destinations : covering.map(({ destination }) => destination);
  const lacking = wanted
    .filter((name) => !holds(name))
    .map((destination) => ({
      destination,
      reason:
        states.find(({ mark }) => mark.destination === destination)?.reason ??
        ('no destination takes it' as const),
    }));
  // Also of one that is not required: it would be told of an eviction of a row that it has to get first, and cannot any more.
  const torn = states.find(({ reason }) => reason !== null && tearing.has(reason));
  if (torn && !lacking.some(({ reason }) => tearing.has(reason)))
    lacking.unshift({ destination: torn.mark.destination, reason: torn.reason! });
  const met = required === 'any' ? holders.length > 0 : wanted.length > 0 && lacking.length === 0;
  const enough = met && !torn;
  const pinned = required === 'any' ? (holders[0]?.destination ?? null) : null;
  const relied = holders.filter(({ destination }) =>
    pinned === null ? wanted.includes(destination) : destination === pinned,
  );
  return { holders, relied, enough, pinned, lacking };
}

const tearing: ReadonlySet<StayReason> = new Set(['changes were skipped', 'destination fell back']);

function reasonOf(
  { mark, incomplete, otherRows, doubt, quarantined }: DeliveryMark,
  key: string,
  passed: Position,
): StayReason | null {
  if (incomplete) return 'changes were skipped';
  if (mark === null || mark < passed) return doubt === 'destination fell back' ? doubt : 'not delivered yet';
  if (doubt) return doubt;
  if (otherRows) return 'not delivered yet';
  if (quarantined === null || quarantined.has(key)) return 'in Quarantine';
  return null;
}
