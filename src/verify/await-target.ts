/** Waiting until a held destination has reached its target, and saying why where it does not. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Pool } from 'pg';
import type { Position } from '../connector/position.ts';
import { controlError } from '../platform/control.ts';
import { type ErrorCode, errorCatalogue, TidemarkError } from '../platform/errors.ts';
import type { UnitBehind, VerifyEvent } from './report.ts';

export interface AwaitOptions {
  pool: Pool;
  sourceId: string;
  destination: string;
  target: Position;
  /** Units that count where they exist: others are left over from earlier settings. */
  candidates: readonly string[];
  /** Units that must exist too. */
  required: readonly string[];
  timeoutMs: number;
  /** How long the absence of every Unit may last before it is taken for final: a worker may be starting. */
  graceMs: number;
  pollMs: number;
  signal: AbortSignal;
  onProgress(event: VerifyEvent): void;
}

/**
 * A worker asks again after an operator's error within 30 s (failure-policy.ts): an error older than our wait may be
 * mended already, until that time is over.
 */
const staleErrorMs = 35_000;

interface Failure {
  code: ErrorCode;
  message: string;
  remedy: string;
  ageMs: number;
}

interface FailureRow {
  error_code: string | null;
  error: string | null;
  remedy: string | null;
  error_age: number | null;
}

interface State {
  /** Why the destination is paused, or null. */
  paused: string | null;
  units: (UnitBehind & { failure: Failure | null })[];
  destination: Failure | null;
  reader: Failure | null;
  /** Milliseconds since the reader last said anything; null: it never did. */
  readerSeenMsAgo: number | null;
}

/**
 * @throws TidemarkError TM411 when it is paused, TM408 when no worker delivers or the time is over; the worker's or the reader's own error
 *   where there is one; TM409
 */
export async function awaitTarget(options: AwaitOptions): Promise<void> {
  const { target, required, timeoutMs, graceMs, pollMs, signal, onProgress } = options;
  const startedAt = performance.now();
  for (let reportedAt = 0; ; ) {
    signal.throwIfAborted();
    const state = await readState(options);
    const behind = state.units.filter(({ mark }) => mark !== target);
    for (const { unit, mark } of behind) {
      if (mark === null || mark < target) continue;
      throw new TidemarkError('TM408', `${name(options, unit)} is already at ${mark}, beyond ${target}`, {
        remedy: 'The source began a new epoch meanwhile: run verify again.',
      });
    }
    const lacking = required.filter((unit) => !state.units.some((known) => known.unit === unit));
    const waitedMs = performance.now() - startedAt;
    if (state.units.length > 0 && behind.length + lacking.length === 0) return;
    if (state.paused !== null) throw paused(options, state.paused);
    const failure = state.destination ?? behind.find((unit) => unit.failure)?.failure ?? null;
    if (failure && errorCatalogue[failure.code].retry !== 'transient') {
      if (failure.ageMs < waitedMs || waitedMs >= staleErrorMs) throw ownError(options, failure);
    }
    if (state.units.length === 0 && waitedMs >= graceMs)
      throw failure ? ownError(options, failure) : neverDelivered(options);
    if (waitedMs >= timeoutMs) throw late(options, state, behind, lacking, failure);
    if (waitedMs - reportedAt >= 1000 || reportedAt === 0) {
      reportedAt = waitedMs || 1;
      onProgress({
        phase: 'deliver',
        waitedMs,
        reached: state.units.length - behind.length,
        behind: [
          ...behind.map(({ failure: _, ...unit }) => unit),
          ...lacking.map((unit) => ({ unit, mark: null, seenMsAgo: null, errorCode: null })),
        ],
      });
    }
    await sleep(pollMs, undefined, { signal }).catch(() => {});
  }
}

async function readState({ pool, sourceId, destination, candidates }: AwaitOptions): Promise<State> {
  try {
    const [units, destinations, sources] = await Promise.all([
      pool.query(
        `select unit, mark, error_code, error, remedy,
                (extract(epoch from now() - error_at) * 1000)::float8 as error_age,
                (extract(epoch from now() - owner_seen_at) * 1000)::float8 as seen
           from tidemark.units where source_id = $1 and destination = $2 and unit = any ($3) order by unit`,
        [sourceId, destination, candidates],
      ),
      pool.query(
        `select error_code, error, remedy, (extract(epoch from now() - changed_at) * 1000)::float8 as error_age,
                case when paused_at is not null then paused_by || ': ' || pause_reason end as paused
           from tidemark.destinations where source_id = $1 and destination = $2`,
        [sourceId, destination],
      ),
      pool.query(
        `select error_code, error, remedy, 0 as error_age,
                (extract(epoch from now() - seen_at) * 1000)::float8 as seen
           from tidemark.sources where source_id = $1`,
        [sourceId],
      ),
    ]);
    return {
      paused: destinations.rows[0]?.paused ?? null,
      units: units.rows.map((row) => ({
        unit: row.unit,
        mark: row.mark,
        seenMsAgo: row.seen,
        errorCode: row.error_code,
        failure: failureOf(row),
      })),
      destination: failureOf(destinations.rows[0]),
      reader: failureOf(sources.rows[0]),
      readerSeenMsAgo: sources.rows[0]?.seen ?? null,
    };
  } catch (error) {
    throw controlError(error);
  }
}

function failureOf(row: FailureRow | undefined): Failure | null {
  if (!row?.error_code) return null;
  // A newer version may have written a code that this one does not know.
  const code = row.error_code in errorCatalogue ? (row.error_code as ErrorCode) : 'TM408';
  return {
    code,
    message: row.error ?? row.error_code,
    remedy: row.remedy ?? errorCatalogue[code].remedy,
    ageMs: row.error_age ?? Number.POSITIVE_INFINITY,
  };
}

function name({ destination }: AwaitOptions, unit: string): string {
  return unit === '*' ? destination : `${unit} of ${destination}`;
}

function ownError({ destination }: AwaitOptions, { code, message, remedy }: Failure): TidemarkError {
  const text = message.includes(destination) ? message : `${destination}: ${message}`;
  return new TidemarkError(code, text, { remedy });
}

function paused({ destination }: AwaitOptions, why: string): TidemarkError {
  return new TidemarkError('TM411', `${destination} is paused (by ${why})`, {
    remedy: `tidemark destination resume ${destination}, then verify.`,
  });
}

function neverDelivered({ destination }: AwaitOptions): TidemarkError {
  return new TidemarkError('TM408', `no worker has ever delivered to ${destination}`, {
    remedy: 'Start `tidemark run`, and try again when `tidemark status` shows the destination.',
  });
}

function late(
  options: AwaitOptions,
  { reader, readerSeenMsAgo }: State,
  behind: readonly UnitBehind[],
  lacking: readonly string[],
  failure: Failure | null,
): TidemarkError {
  if (failure) return ownError(options, failure);
  if (reader) {
    return new TidemarkError(reader.code, `the reader of the source: ${reader.message}`, {
      remedy: reader.remedy,
    });
  }
  const first = behind[0];
  const unit = first?.unit ?? lacking[0] ?? '*';
  const seconds = Math.round(options.timeoutMs / 1000);
  const worker =
    first === undefined || first.seenMsAgo === null
      ? 'no worker has it'
      : `its worker was last seen ${ago(first.seenMsAgo)}`;
  const source = readerSeenMsAgo === null ? 'never' : ago(readerSeenMsAgo);
  return new TidemarkError(
    'TM408',
    `${name(options, unit)} has not reached ${options.target} within ${seconds} s: it is at ${first?.mark ?? 'no Position'}, ${worker}, the reader last reported ${source}`,
    {
      remedy:
        'If the worker or the reader is not running, start `tidemark run`; if it is catching up, allow more with --timeout.',
    },
  );
}

function ago(milliseconds: number): string {
  return `${Math.max(0, Math.round(milliseconds / 1000))} s ago`;
}
