/** Snapshots for people and for programs: how far, how fast, how long still. */
import type { SnapshotRequest, SnapshotRequestState } from '../publish/snapshot/snapshot-requests.ts';

export interface SnapshotStatus {
  table: string;
  kind: 'initial' | 'ad-hoc';
  state: SnapshotRequestState;
  condition: string | null;
  /** Whom it is for; null: all. */
  destination: string | null;
  rows: number;
  /** The planner's guess; never less than `rows`. */
  estimatedRows: number | null;
  /** 0 to 1. Below 1 until it is done: the rows to come are a guess. */
  fraction: number | null;
  rowsPerSecond: number | null;
  secondsLeft: number | null;
  /** Chunks that were read once more. */
  rereads: number;
  waitsFor: string | null;
  requestedAt: string;
  finishedAt: string | null;
  problem: { code: string; error: string; remedy: string } | null;
}

export function snapshotStatus(request: SnapshotRequest): SnapshotStatus {
  const { state, rows, startedAt, finishedAt, updatedAt } = request;
  const done = state === 'done';
  const estimatedRows =
    request.estimatedRows === null ? null : Math.max(rows, done ? rows : request.estimatedRows);
  const seconds = startedAt ? ((finishedAt ?? updatedAt).getTime() - startedAt.getTime()) / 1000 : 0;
  const rowsPerSecond = rows > 0 && seconds > 0 ? rows / seconds : null;
  const left = estimatedRows === null ? null : estimatedRows - rows;
  return {
    table: request.table,
    kind: request.kind,
    state,
    condition: request.condition,
    destination: request.destination,
    rows,
    estimatedRows,
    fraction: fractionOf(done, rows, estimatedRows),
    rowsPerSecond,
    secondsLeft: state === 'running' && rowsPerSecond && left !== null ? left / rowsPerSecond : null,
    rereads: request.rereads,
    waitsFor: request.waitsFor,
    requestedAt: request.requestedAt.toISOString(),
    finishedAt: finishedAt?.toISOString() ?? null,
    problem: request.problem,
  };
}

/** What was guessed too low must not look done. */
const almost = 0.99;

function fractionOf(done: boolean, rows: number, estimatedRows: number | null): number | null {
  if (done) return 1;
  if (estimatedRows === null) return null;
  return estimatedRows === 0 ? 0 : Math.min(almost, rows / estimatedRows);
}

const barWidth = 20;

export function progressBar(fraction: number, width = barWidth): string {
  const filled = Math.floor(fraction * width);
  return '█'.repeat(filled) + '░'.repeat(width - filled);
}

export function renderSnapshots(snapshots: readonly SnapshotStatus[]): string {
  if (snapshots.length === 0) return 'no snapshot was ever requested\n';
  const width = Math.max(...snapshots.map(({ table }) => table.length));
  return `${snapshots.flatMap((snapshot) => snapshotLines(snapshot, width)).join('\n')}\n`;
}

export function snapshotLines(snapshot: SnapshotStatus, width = 0): string[] {
  const { table, state, kind, fraction, rows, estimatedRows, rowsPerSecond, secondsLeft } = snapshot;
  const parts = [
    kind === 'initial' ? state : `${state} (ad hoc)`,
    state === 'done' || estimatedRows === null
      ? `${grouped(rows)} rows`
      : `${grouped(rows)} of about ${grouped(estimatedRows)} rows`,
    ...(rowsPerSecond === null ? [] : [`${grouped(Math.round(rowsPerSecond))} rows/s`]),
    ...(secondsLeft === null ? [] : [`about ${duration(secondsLeft)} left`]),
    ...(snapshot.rereads > 0 ? [`${grouped(snapshot.rereads)} chunks read again`] : []),
    ...(snapshot.destination === null ? [] : [`for ${snapshot.destination} alone`]),
    ...(snapshot.condition === null ? [] : [`where ${snapshot.condition}`]),
  ];
  const sign = state === 'failed' ? '✗' : state === 'done' ? '✓' : '·';
  const percent = fraction === null ? '' : `${Math.floor(fraction * 100)} %`.padStart(5);
  const bar = fraction === null ? ' '.repeat(barWidth) : progressBar(fraction);
  const lines = [`${sign} ${table.padEnd(width)}  ${bar} ${percent}  ${parts.join(', ')}`.trimEnd()];
  if (snapshot.waitsFor) lines.push(`    waits for ${snapshot.waitsFor}`);
  if (snapshot.problem) {
    lines.push(`    ${snapshot.problem.code}: ${snapshot.problem.error}`, `    → ${snapshot.problem.remedy}`);
  }
  return lines;
}

function grouped(value: number): string {
  return value.toLocaleString('en-US');
}

function duration(seconds: number): string {
  if (seconds < 120) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
