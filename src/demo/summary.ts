/** What a bounded demo found out: as an object for --json, as text for people. */
import type { Position } from '../connector/position.ts';
import type { WorkloadTotals } from '../sample/workload.ts';
import type { VerifyReport } from '../verify/report.ts';
import type { LetGo } from './let-go.ts';
import { grouped, milliseconds, shortPosition, size } from './text.ts';

export interface DestinationSummary {
  name: string;
  windows: number;
  /** Changes acknowledged, the history included. */
  rows: number;
  /** As the destination counts them. */
  bytes: number;
  /** From commit to readable, over the transactions of the run; see latency.ts. */
  p50Ms: number | null;
  p99Ms: number | null;
  /** Null where it cannot be read back. */
  verify: {
    equal: boolean;
    position: Position;
    /** Rows of the source at that Position, over all tables. */
    rows: number;
    seconds: number;
    tables: {
      table: string;
      status: string;
      sourceRows: number | null;
      destinationRows: number | null;
      /** The first digits of the source's and the destination's hash. */
      sourceHash: string | null;
      destinationHash: string | null;
    }[];
  } | null;
}

export interface DemoSummary {
  equal: boolean;
  /** Committed; rolled back ones are not among them. */
  transactions: number;
  rolledBack: number;
  /** Changed by them. */
  rows: number;
  /** From the first transaction to the last, and until every destination had everything. */
  writtenSeconds: number;
  deliveredSeconds: number;
  /** Rows committed by the application per second of writing. */
  rowsPerSecond: number;
  /** Encoded into Kafka, headers included. */
  kafkaBytes: number;
  /** Highest resident memory of this process: reader, delivery, workload and verify together. */
  peakMemoryBytes: number;
  /** Null where no destination keeps what could be let go. */
  letGo: LetGo | null;
  destinations: DestinationSummary[];
}

export interface Measured {
  totals: WorkloadTotals;
  rows: number;
  writtenSeconds: number;
  deliveredSeconds: number;
  kafkaBytes: number;
  destinations: Omit<DestinationSummary, 'verify'>[];
}

const hashPrefix = 8;

export function summarize(
  measured: Measured,
  letGo: LetGo | null,
  reports: readonly VerifyReport[],
  peakMemoryBytes: number,
): DemoSummary {
  const { totals, rows, writtenSeconds, deliveredSeconds, kafkaBytes } = measured;
  return {
    equal: reports.every(({ equal }) => equal),
    transactions: totals.committed,
    rolledBack: totals.rolledBack + totals.conflicts,
    rows,
    writtenSeconds: rounded(writtenSeconds),
    deliveredSeconds: rounded(deliveredSeconds),
    rowsPerSecond: Math.round(rows / Math.max(writtenSeconds, 0.001)),
    kafkaBytes,
    peakMemoryBytes,
    letGo,
    destinations: measured.destinations.map((destination) => ({
      ...destination,
      p50Ms: destination.p50Ms === null ? null : Math.round(destination.p50Ms),
      p99Ms: destination.p99Ms === null ? null : Math.round(destination.p99Ms),
      verify: verifyOf(reports.find((report) => report.destination === destination.name)),
    })),
  };
}

function verifyOf(report: VerifyReport | undefined): DestinationSummary['verify'] {
  if (!report) return null;
  const { equal, position, tables, durations } = report;
  return {
    equal,
    position,
    rows: tables.reduce((sum, { sourceRows }) => sum + (sourceRows ?? 0), 0),
    seconds: rounded(durations.totalMs / 1000),
    tables: tables.map(({ table, status, sourceRows, destinationRows, sourceHash, destinationHash }) => ({
      table,
      status,
      sourceRows,
      destinationRows,
      sourceHash: sourceHash?.slice(0, hashPrefix) ?? null,
      destinationHash: destinationHash?.slice(0, hashPrefix) ?? null,
    })),
  };
}

function rounded(seconds: number): number {
  return Math.round(seconds * 10) / 10;
}

export function renderSummary(summary: DemoSummary): string {
  const { transactions, rows, writtenSeconds, rowsPerSecond, deliveredSeconds } = summary;
  const lines = [
    `${grouped(transactions)} transactions, ${grouped(rows)} rows in ${writtenSeconds} s (${grouped(rowsPerSecond)} rows/s); delivered everywhere after ${deliveredSeconds} s`,
    `${size(summary.kafkaBytes)} into Kafka; peak memory ${size(summary.peakMemoryBytes)}, everything in one process`,
  ];
  for (const { name, windows, rows: changes, bytes, p50Ms, p99Ms, verify } of summary.destinations) {
    lines.push('', `${name}: ${grouped(changes)} changes in ${grouped(windows)} Windows, ${size(bytes)}`);
    lines.push(`  from commit to readable: p50 ${milliseconds(p50Ms)}, p99 ${milliseconds(p99Ms)}`);
    if (!verify) {
      lines.push('  acknowledged everything; it cannot be read back, so there is nothing to compare');
      continue;
    }
    const width = Math.max(0, ...verify.tables.map(({ table }) => table.length));
    for (const { table, status, sourceRows, sourceHash, ...held } of verify.tables) {
      const same = status === 'equal';
      const sides = same
        ? `${count(sourceRows)} rows  ${sourceHash ?? 'never changed'}`
        : `${count(sourceRows)} rows ${sourceHash ?? '–'} ≠ ${count(held.destinationRows)} rows ${held.destinationHash ?? '–'}  ${status}`;
      lines.push(`  ${same ? '✓' : '✗'} ${table.padEnd(width)}  ${sides}`);
    }
    lines.push(
      `  ${verify.equal ? 'equals' : 'DIFFERS FROM'} the source at ${shortPosition(verify.position)}: ${grouped(verify.rows)} rows, compared in ${verify.seconds} s while writes went on`,
    );
  }
  if (summary.letGo) lines.push('', ...letGoLines(summary.letGo));
  return `${lines.join('\n')}\n`;
}

function letGoLines({ table, key, evicted, tombstone, answeredBy, recalledFrom, seconds }: LetGo): string[] {
  return [
    `cold storage: ${grouped(evicted)} rows of ${table} were too old and left the source, after ${tombstone.deliveredTo.join(' and ')} had them`,
    `  ${key}: Tombstone ${tombstone.id}, content hash ${tombstone.contentHash.slice(0, 2 * hashPrefix)}…; answered in ${answeredBy.join(' and ')}, recalled from ${recalledFrom} with that hash, all within ${seconds} s`,
  ];
}

function count(rows: number | null): string {
  return (rows === null ? '–' : grouped(rows)).padStart(6);
}
