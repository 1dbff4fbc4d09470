/** Where an erasure came, and where it cannot: every destination with its mark, the topics with their retention. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka } from 'kafkajs';
import type { Client, Pool } from 'pg';
import { type Position, parseLsn } from '../../connector/position.ts';
import { tableName, unitName } from '../../connector/shape.ts';
import { controlError } from '../../platform/control.ts';
import { kafkaError } from '../../platform/kafka.ts';
import { peekProgress } from '../../publish/progress-log.ts';
import { topicNames } from '../../publish/record-format.ts';
import { matchesPattern } from '../../replicate/catalogue.ts';
import { positionBehind } from '../published-progress.ts';
import type { RetentionOptions } from '../retention.ts';
import type { ErasableTable } from './scope.ts';

export interface DestinationReach {
  destination: string;
  /** `gone`: the delete came. `waiting`: it is on its way. `stays`: it came, and the row stays all the same. */
  row: 'gone' | 'waiting' | 'stays' | 'unknown';
  tables: string[];
  /** Why it waits; null: it does not. */
  waitsFor: string | null;
  /** Where values still are, each with what takes them away. */
  left: string[];
  /** Rows of these tables, of whatever tenant, that it refused: their dead letters stay in Kafka. */
  quarantined: number;
}

export interface TopicReach {
  topic: string;
  /** When its records from before are gone; null: never by themselves. */
  until: Date | null;
}

interface ReachOptions {
  pool: Pool;
  config: RetentionOptions['config'];
  sinkKinds: RetentionOptions['sinkKinds'];
  kafka: Kafka;
  signal: AbortSignal;
}

/** Waits until every destination has merged what was written to the source so far, or the time is up. */
export async function reachOf(
  client: Client,
  tables: readonly ErasableTable[],
  tenant: string | null,
  timeoutMs: number,
  options: ReachOptions,
): Promise<DestinationReach[]> {
  const { rows } = await client.query<{ lsn: string; file: string }>(
    'select lsn, pg_walfile_name(lsn) as file from pg_current_wal_insert_lsn() as lsn',
  );
  const mark = { lsn: parseLsn(rows[0]!.lsn), timeline: Number.parseInt(rows[0]!.file.slice(0, 8), 16) };
  const positions = new Map<string, Position>();
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const reached = await look(tables, tenant, mark, positions, options);
    const isOver = performance.now() >= deadline || options.signal.aborted;
    if (isOver || reached.every(({ waitsFor }) => waitsFor === null)) return reached;
    await sleep(500, undefined, { signal: options.signal }).catch(() => {});
  }
}

async function look(
  tables: readonly ErasableTable[],
  tenant: string | null,
  mark: { lsn: bigint; timeline: number },
  positions: Map<string, Position>,
  { pool, config, sinkKinds, kafka }: ReachOptions,
): Promise<DestinationReach[]> {
  const topics = topicNames(config.kafka.topicPrefix);
  const waits = new Map<string, string>();
  if (tables.some(({ name }) => !positions.has(name))) {
    const progress = await peekProgress(kafka, topics.progress).catch((error: unknown) => {
      throw kafkaError(error, 'read the newest Progress');
    });
    for (const { table, name } of tables) {
      const found = positionBehind(progress, mark, { ...table, topic: topics.table(table) });
      if (found.includes('/')) positions.set(name, found as Position);
      else waits.set(name, found === 'not delivered yet' ? 'the reader' : found);
    }
  }
  const reached: DestinationReach[] = [];
  for (const {
    name: destination,
    kind: kindName,
    tables: patterns,
    tenant: own,
    options,
  } of config.destinations) {
    const kind = sinkKinds.get(kindName);
    const its = tables.filter(({ table }) => patterns.some((pattern) => matchesPattern(pattern, table)));
    if (!kind || its.length === 0 || (own !== null && tenant !== null && own !== tenant)) continue;
    const { row, left } = kind.leftovers?.(options) ?? {
      row: 'unknown' as const,
      left: ['nobody can say what it keeps'],
    };
    const reach: DestinationReach = {
      destination,
      row,
      tables: its.map(({ name }) => name),
      waitsFor: null,
      left,
      quarantined: 0,
    };
    reached.push(reach);
    // What needs somebody is told rather than what passes.
    reach.waitsFor = its.map(({ name }) => waits.get(name)).find((each) => each !== undefined) ?? null;
    for (const { table, name } of its) {
      const unit = kind.unit === 'destination' ? '*' : unitName(table);
      const found = await askLedger(pool, [config.source.id, destination, unit, tableName(table)]);
      reach.quarantined += found.quarantined;
      const position = positions.get(name);
      if (position !== undefined && (found.mark === null || found.mark < position))
        reach.waitsFor ??= `its delivery of ${name}`;
    }
    if (reach.waitsFor !== null) reach.row = 'waiting';
  }
  return reached;
}

async function askLedger(
  pool: Pool,
  values: string[],
): Promise<{ mark: Position | null; quarantined: number }> {
  try {
    const { rows } = await pool.query<{ mark: Position | null; quarantined: number }>(
      `select (select mark from tidemark.units where source_id = $1 and destination = $2 and unit = $3) as mark,
              (select count(*)::int from tidemark.quarantine where source_id = $1 and destination = $2 and unit = $3
                 and table_name = $4 and state in ('held', 'replaying', 'dropped')) as quarantined`,
      values,
    );
    return rows[0]!;
  } catch (error) {
    throw controlError(error);
  }
}

/** Records from before stay as long as their topics keep them. */
export function topicsOf(
  tables: readonly ErasableTable[],
  { config }: Pick<ReachOptions, 'config'>,
): TopicReach[] {
  const { retentionMs, topicPrefix } = config.kafka;
  const topics = topicNames(topicPrefix);
  const until = retentionMs < 0 ? null : new Date(Date.now() + retentionMs);
  return [...tables.map(({ table }) => topics.table(table)), topics.parked, topics.quarantine].map(
    (topic) => ({ topic, until }),
  );
}
