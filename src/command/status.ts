/** `tidemark status`: where everything stands. Only reads; every part that does not answer is named, not fatal. */
import { formatLsn, parsePosition } from '../connector/position.ts';
import { type DestinationRecord, readDestinations } from '../deliver/destination-list.ts';
import type { RecordedFailure } from '../deliver/ledger.ts';
import { retentionLeft } from '../deliver/retention-left.ts';
import { controlError, openControl } from '../platform/control.ts';
import { asTidemarkError, TidemarkError } from '../platform/errors.ts';
import { createKafka, kafkaError } from '../platform/kafka.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import type { Progress } from '../publish/progress.ts';
import { peekProgress } from '../publish/progress-log.ts';
import { topicNames } from '../publish/record-format.ts';
import { type SnapshotRequest, SnapshotRequests } from '../publish/snapshot/snapshot-requests.ts';
import { walLevel } from '../publish/wal-budget.ts';
import { trackedTables } from '../replicate/catalogue.ts';
import { planPublications } from '../replicate/publication.ts';
import { connectSource, readSlot } from '../replicate/source.ts';
import { type WithheldColumn, withheldColumns } from '../replicate/withheld-columns.ts';
import { type CommandContext, configOf, exitCode } from './context.ts';
import { type SnapshotStatus, snapshotStatus } from './snapshot-text.ts';
import { renderStatus, seconds } from './status-text.ts';

export interface Problem {
  code: string;
  error: string;
  remedy: string;
}

export interface DestinationStatus {
  name: string;
  kind: string;
  paused: { at: string; by: string; reason: string } | null;
  /** Rows that it refused: `tidemark quarantine list`. */
  quarantined: number;
  /** What keeps all of it from working. */
  problem: Problem | null;
}

export interface UnitStatus {
  destination: string;
  unit: string;
  /** End Position of the last Window; null before the first. */
  mark: string | null;
  /** How far behind the source's commits the mark is. */
  lagSeconds: number | null;
  lagBytes: number | null;
  windows: number;
  /** Windows decided but not yet acknowledged. */
  open: number;
  ownerSeenAt: string | null;
  /** How long Kafka keeps what it has yet to read; null: nothing can be lost. */
  kafkaKeepsSeconds: number | null;
  problem: Problem | null;
}

export interface StatusReport {
  source: {
    id: string;
    slot: {
      name: string;
      active: boolean;
      confirmedLsn: string;
      retainedWalBytes: number;
      walStatus: string;
      /** Null without source.wal.budget.bytes. */
      walBudgetBytes: number | null;
    } | null;
    currentLsn: string | null;
    epoch: number | null;
    problem: Problem | null;
  };
  /** Columns that do not leave Postgres as they are; null where the source did not say. */
  withheld: WithheldColumn[] | null;
  progress: {
    position: string;
    boundary: boolean;
    lagSeconds: number;
    lagBytes: number | null;
    parked: { table: string; position: string; code: string; reason: string }[];
  } | null;
  /** Those that are open or failed. */
  snapshots: SnapshotStatus[];
  destinations: DestinationStatus[];
  units: UnitStatus[];
  /** Configured destinations without a Unit: no worker has delivered to them yet. None where the ledger does not answer. */
  waiting: string[];
  problems: (Problem & { part: string })[];
  ok: boolean;
}

export async function statusCommand(context: CommandContext): Promise<number> {
  const report = await collectStatus(await configOf(context), context);
  context.stdout(context.json ? `${JSON.stringify(report, null, 2)}\n` : renderStatus(report));
  return report.ok ? exitCode.ok : exitCode.no;
}

export async function collectStatus(config: ResolvedConfig, context: CommandContext): Promise<StatusReport> {
  const problems: StatusReport['problems'] = [];
  const attempt = async <T>(part: string, run: () => Promise<T>): Promise<T | null> => {
    try {
      return await run();
    } catch (caught) {
      const { code, message, remedy } = asTidemarkError(caught);
      problems.push({ part, code, error: message, remedy });
      return null;
    }
  };
  const [source, progress, ledger] = await Promise.all([
    attempt('source', () => readSource(config)),
    attempt('kafka', () => readProgress(config, context)),
    attempt('control', () => readLedger(config, context)),
  ]);
  const withheld = source && (await attempt('tables', () => readWithheld(config)));
  const currentLsn = source?.currentLsn ?? null;
  const lagBytes = (position: string) =>
    currentLsn === null ? null : Math.max(0, Number(currentLsn - parsePosition(position).lsn));
  const nowUs = Date.now() * 1000;
  const lagSeconds = (timeUs: number) => Math.max(0, (nowUs - timeUs) / 1e6);
  const { walBudget } = config.source;
  if (walBudget && source?.slot && walLevel(source.slot.retainedBytes, walBudget.bytes) !== 'within') {
    const { code, remedy } = new TidemarkError('TM243', '');
    const error = `the slot keeps ${source.slot.retainedBytes} bytes of WAL, the budget is ${walBudget.bytes}`;
    problems.push({ part: 'wal budget', code, error, remedy });
  }
  const destinations = (ledger?.destinations ?? []).map(destinationStatus);
  const units = (ledger?.destinations ?? []).flatMap(({ name, units }) =>
    units.map(({ unit, mark, markTimeUs, windows, open, ownerSeenAt, failure }): UnitStatus => {
      const pending = progress !== null && mark !== null && progress.position > mark;
      const left =
        markTimeUs === null ? null : retentionLeft(config.kafka.retentionMs, { markTimeUs, pending });
      return {
        destination: name,
        unit,
        mark,
        lagSeconds: markTimeUs === null ? null : lagSeconds(Number(markTimeUs)),
        lagBytes: mark === null ? null : lagBytes(mark),
        windows,
        open,
        ownerSeenAt: ownerSeenAt?.toISOString() ?? null,
        kafkaKeepsSeconds: left && left.leftMs / 1000,
        problem: problemOf(failure) ?? (left?.short ? overtaken(left.leftMs) : null),
      };
    }),
  );
  const parked = Object.entries(progress?.parked ?? {}).map(([table, { position, code, reason }]) => ({
    table,
    position,
    code,
    reason,
  }));
  const known = new Set(units.map((unit) => unit.destination));
  const snapshots = (ledger?.snapshots ?? [])
    .filter(({ state }) => state !== 'done' && state !== 'cancelled')
    .map((request) => snapshotStatus(request));
  const readerProblem = ledger?.source?.error_code
    ? { code: ledger.source.error_code, error: ledger.source.error ?? '', remedy: ledger.source.remedy ?? '' }
    : null;
  return {
    source: {
      id: config.source.id,
      slot: source?.slot
        ? {
            name: source.slot.name,
            active: source.slot.active,
            confirmedLsn: formatLsn(source.slot.confirmedLsn),
            retainedWalBytes: Number(source.slot.retainedBytes),
            walStatus: source.slot.walStatus,
            walBudgetBytes: config.source.walBudget?.bytes ?? null,
          }
        : null,
      currentLsn: currentLsn === null ? null : formatLsn(currentLsn),
      epoch: ledger?.source?.epoch ?? null,
      problem: readerProblem,
    },
    withheld,
    progress: progress && {
      position: progress.position,
      boundary: progress.boundary,
      lagSeconds: lagSeconds(Number(progress.commitTimeUs)),
      lagBytes: currentLsn === null ? null : Math.max(0, Number(currentLsn - progress.ackLsn)),
      parked,
    },
    snapshots,
    destinations,
    units,
    waiting: ledger ? config.destinations.map(({ name }) => name).filter((name) => !known.has(name)) : [],
    problems,
    ok:
      problems.length === 0 &&
      !readerProblem &&
      parked.length === 0 &&
      snapshots.every(({ problem }) => problem === null) &&
      // A pause that somebody asked for is no failure.
      destinations.every(({ problem, paused }) => problem === null && paused?.by !== 'tidemark') &&
      units.every((unit) => unit.problem === null),
  };
}

/** Kafka's retention comes near to what a Unit has yet to read. */
function overtaken(leftMs: number): Problem {
  const { code, remedy } = new TidemarkError('TM414', '');
  return { code, error: `Kafka keeps what it has yet to read for another ${seconds(leftMs / 1000)}`, remedy };
}

function destinationStatus({
  name,
  kind,
  pause,
  quarantined,
  failure,
}: DestinationRecord): DestinationStatus {
  return {
    name,
    kind,
    paused: pause && { at: pause.at.toISOString(), by: pause.by, reason: pause.reason },
    quarantined,
    problem: problemOf(failure),
  };
}

function problemOf(failure: RecordedFailure | null): Problem | null {
  return failure && { code: failure.code, error: failure.message, remedy: failure.remedy };
}

async function readSource(config: ResolvedConfig) {
  const client = await connectSource(config.source, 'tidemark/status');
  try {
    const slot = await readSlot(client, config.source.slot);
    const { rows } = await client.query(
      `select (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end - '0/0'::pg_lsn)::text as lsn`,
    );
    return { slot, currentLsn: BigInt(rows[0].lsn) };
  } finally {
    await client.end().catch(() => {});
  }
}

async function readWithheld({ source }: ResolvedConfig): Promise<WithheldColumn[]> {
  const client = await connectSource(source, 'tidemark/status');
  try {
    const { rows } = await client.query(`select current_setting('server_version_num')::int as version`);
    const tables = await trackedTables(client, source);
    return withheldColumns(source, planPublications(source, tables, rows[0].version));
  } finally {
    await client.end().catch(() => {});
  }
}

async function readProgress(config: ResolvedConfig, context: CommandContext): Promise<Progress | null> {
  const kafka = createKafka(config.kafka, context.log, { retry: { retries: 1 } });
  const { progress } = topicNames(config.kafka.topicPrefix);
  const admin = kafka.admin();
  try {
    await admin.connect();
    if (!(await admin.listTopics()).includes(progress)) return null;
    return await peekProgress(kafka, progress);
  } catch (error) {
    throw kafkaError(error, 'read the newest Progress');
  } finally {
    await admin.disconnect().catch(() => {});
  }
}

interface SourceStatusRow {
  epoch: number;
  error_code: string | null;
  error: string | null;
  remedy: string | null;
}

async function readLedger(
  config: ResolvedConfig,
  context: CommandContext,
): Promise<{
  source: SourceStatusRow | null;
  destinations: DestinationRecord[];
  snapshots: SnapshotRequest[];
}> {
  const pool = openControl(config.control, context.log, 1);
  try {
    const { rows: present } = await pool.query(`select to_regclass('tidemark.units') is not null as present`);
    if (!present[0].present) return { source: null, destinations: [], snapshots: [] };
    const sources = await pool.query<SourceStatusRow>(
      `select epoch, error_code, error, remedy from tidemark.sources where source_id = $1`,
      [config.source.id],
    );
    const destinations = await readDestinations(pool, config.source.id);
    const snapshots = await new SnapshotRequests(pool, config.source.id).newest();
    return { source: sources.rows[0] ?? null, destinations, snapshots };
  } catch (error) {
    throw controlError(error);
  } finally {
    await pool.end().catch(() => {});
  }
}
