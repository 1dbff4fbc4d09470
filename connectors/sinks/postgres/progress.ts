/**
 * What the destination itself says it holds: one row per Unit in `_tidemark.progress`, written in the transaction of
 * the merge. Its lock makes merges of a Unit take turns, its token shuts out the worker that lost the Unit.
 */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { asPosition } from '../../../src/connector/position.ts';
import type { Held, MergeWindow, Receipt } from '../../../src/connector/sink.ts';
import type { Session } from './client.ts';
import { SessionError, sqlState } from './failures.ts';
import { quoteText } from './quote.ts';

/** Layout of the schema `_tidemark`; a row of a later one is refused. */
const format = 1;

/** Serializes the creation of schemas, types and tables between sinks that share a database. */
export const lockDefinitions = 'SELECT pg_advisory_xact_lock(7596560012061140331)';

const definitions = [
  'CREATE SCHEMA IF NOT EXISTS _tidemark',
  `CREATE TABLE IF NOT EXISTS _tidemark.progress (
  source_id     text NOT NULL,
  destination   text NOT NULL,
  unit          text NOT NULL,
  position      text COLLATE "C" NOT NULL,
  sequence      bigint NOT NULL,
  fencing_token bigint NOT NULL,
  merged_at     timestamptz NOT NULL,
  receipt       jsonb,
  format        smallint NOT NULL DEFAULT ${format},
  PRIMARY KEY (source_id, destination, unit)
)`,
  // The tables that a destination merges into, whether it made them, and the source's table with the shape they were
  // merged with last: no two may share one.
  `CREATE TABLE IF NOT EXISTS _tidemark.tables (
  schema_name text NOT NULL,
  table_name  text NOT NULL,
  source_id   text NOT NULL,
  destination text NOT NULL,
  created     boolean NOT NULL,
  first_seen  timestamptz NOT NULL DEFAULT now(),
  shape       jsonb,
  source_schema text,
  source_table  text,
  history     boolean NOT NULL DEFAULT false,
  deleted_at_column text,
  PRIMARY KEY (schema_name, table_name)
)`,
];

export interface UnitName {
  sourceId: string;
  destination: string;
  unit: string;
}

export interface StoredProgress extends Held {
  receipt: Receipt | null;
}

function whereUnit({ sourceId, destination, unit }: UnitName): string {
  return `source_id = ${quoteText(sourceId)} AND destination = ${quoteText(destination)} AND unit = ${quoteText(unit)}`;
}

function selectUnit(unit: UnitName): string {
  return `SELECT position, sequence, fencing_token, receipt::text, format FROM _tidemark.progress WHERE ${whereUnit(unit)}`;
}

function readUnit(row: (string | null)[] | undefined): StoredProgress | null {
  if (!row) return null;
  const [position, sequence, token, receipt, version] = row;
  if (Number(version) > format) {
    throw new TidemarkError(
      'TM404',
      `_tidemark.progress has format ${version}; this version knows ${format}`,
      {
        remedy: 'A newer Tidemark wrote this destination: run that version.',
      },
    );
  }
  return {
    position: asPosition(position!),
    sequence: Number(sequence),
    fencingToken: BigInt(token!),
    receipt: receipt ? (JSON.parse(receipt) as Receipt) : null,
  };
}

/** Schema, table or database object missing: nothing was ever merged here. */
function isMissing(error: unknown): boolean {
  const state = error instanceof SessionError ? sqlState(error.raw) : null;
  return state === '42P01' || state === '3F000';
}

/** Null where this Unit was never merged. @throws SessionError */
export async function readProgress(session: Session, unit: UnitName): Promise<StoredProgress | null> {
  try {
    const [result] = await session.run(selectUnit(unit));
    return readUnit(result!.rows[0]);
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

export interface LockedUnit {
  /** Null where this Unit was never merged; its row then exists within this transaction only. */
  stored: StoredProgress | null;
  /** The transaction's own id, by which the destination names the commit. */
  commitId: string;
}

/**
 * Starts the merge's transaction and locks the Unit's row, which it makes where it is missing: of two first writers
 * one waits for the other's commit and then reads its row.
 * @throws SessionError
 */
export async function lockProgress(
  session: Session,
  unit: UnitName,
  begin: readonly string[],
): Promise<LockedUnit> {
  const select = `${selectUnit(unit)} FOR UPDATE`;
  const open = [...begin, 'SELECT pg_current_xact_id()::text', select];
  let results = await session.run(...open).catch(async (error: unknown) => {
    if (!isMissing(error)) throw error;
    await session.run('ROLLBACK');
    await session.run('BEGIN', lockDefinitions, ...definitions, 'COMMIT');
    return session.run(...open);
  });
  const commitId = results.at(-2)!.rows[0]![0]!;
  let row = results.at(-1)!.rows[0];
  if (!row) {
    results = await session.run(
      `INSERT INTO _tidemark.progress VALUES (${quoteText(unit.sourceId)}, ${quoteText(unit.destination)},
  ${quoteText(unit.unit)}, '', 0, 0, now()) ON CONFLICT DO NOTHING`,
      select,
    );
    row = results[0]!.count === 1 ? undefined : results[1]!.rows[0];
  }
  return { stored: readUnit(row), commitId };
}

/**
 * What is to be done with a Window, given what the destination holds: null to merge it, or the Receipt of a Window
 * that is already there. A Window older than the last one answers the last one's Receipt, whose Position covers it.
 *
 * @throws TidemarkError TM403 for an owner that was replaced, TM404 where the Window does not follow what is held.
 */
export function decideMerge(window: MergeWindow, stored: StoredProgress | null): Receipt | null {
  const unit = `${window.destination}/${window.unit}`;
  if (stored && stored.fencingToken > window.fencingToken) {
    throw new TidemarkError(
      'TM403',
      `${unit}: the destination has seen token ${stored.fencingToken}, this worker has ${window.fencingToken}`,
    );
  }
  const sequence = stored?.sequence ?? 0;
  if (stored && window.sequence <= sequence && window.to <= stored.position) {
    if (stored.receipt) return { ...stored.receipt, alreadyHeld: true };
  }
  // Windows without records are not handed to a sink: the next one may start later than the last one ended.
  if (window.sequence === sequence + 1 && (!stored || stored.position <= window.from)) return null;
  const holds = stored ? `Window ${sequence} up to ${stored.position}` : 'nothing';
  throw new TidemarkError(
    'TM404',
    `${unit}: Window ${window.sequence} starts at ${window.from}, but the destination holds ${holds}`,
    {
      remedy:
        'The destination was restored, emptied or changed by hand, or the ledger was. Restore the one that is behind, or rebuild the destination.',
    },
  );
}

/** The row as this merge leaves it. */
export function saveProgress(window: MergeWindow, receipt: Receipt): string {
  return `UPDATE _tidemark.progress SET position = ${quoteText(window.to)}, sequence = ${window.sequence},
  fencing_token = ${window.fencingToken}, merged_at = now(), receipt = ${quoteText(JSON.stringify(receipt))}
  WHERE ${whereUnit(window)}`;
}

/** A held Window met by a new owner: its token shuts out the old one from now on. */
export function raiseToken(window: MergeWindow): string {
  return `UPDATE _tidemark.progress SET fencing_token = ${window.fencingToken} WHERE ${whereUnit(window)}`;
}
