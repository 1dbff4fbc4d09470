/** A report as text for a terminal. */
import type { KeyDifference, TableReport, VerifyReport } from './report.ts';

/** Enough of a hash to see by eye that two differ. */
const hashPrefix = 8;
const shownValueLength = 60;

/** A line per table; below those that differ, their keys and what to do. */
export function renderReport(report: VerifyReport): string {
  const { tables, equal, destination, position, durations } = report;
  const rows = tables.map(cellsOf);
  const widths = [0, 1, 2].map((column) => Math.max(0, ...rows.map((row) => row[column]!.length)));
  const lines: string[] = [];
  tables.forEach((table, i) => {
    const [name, source, held, rest] = rows[i]!;
    const sign = table.status === 'equal' ? '✓' : '✗';
    const line = `${sign} ${name!.padEnd(widths[0]!)}  ${source!.padStart(widths[1]!)}  ${held!.padStart(widths[2]!)}  ${rest}`;
    lines.push(line.trimEnd());
    for (const key of table.keys) lines.push(`    ${describeKey(key)}`);
    const shown = table.keys.reduce((sum, { count }) => sum + count, 0);
    const all = table.missing + table.extra + table.different;
    if (table.keys.length > 0 && all > shown) lines.push(`    … and ${grouped(all - shown)} more (--limit)`);
    if (table.hint) lines.push(`    → ${table.hint}`);
  });
  if (tables.length === 0) lines.push('no table of the source is subscribed');
  const unequal = tables.filter(({ status }) => status !== 'equal').length;
  const answer = equal
    ? `${destination} equals source ${report.sourceId}`
    : `${destination} differs from source ${report.sourceId} in ${unequal} of ${tables.length} tables`;
  const waited = seconds(durations.snapshotMs + durations.deliverMs);
  lines.push('', `${answer} at ${position}`);
  lines.push(
    `${seconds(durations.totalMs)} s: waited ${waited} s, compared ${seconds(durations.compareMs)} s`,
  );
  return `${lines.join('\n')}\n`;
}

function cellsOf(table: TableReport): string[] {
  return [table.table, count(table.sourceRows), count(table.destinationRows), outcome(table)];
}

function outcome(table: TableReport): string {
  const { status, sourceHash, destinationHash, countsExact } = table;
  if (status === 'parked') return 'parked';
  if (status === 'not-replicated') return 'not replicated';
  if (status === 'equal') return sourceHash === null ? 'never changed' : sourceHash.slice(0, hashPrefix);
  const atLeast = countsExact ? '' : 'at least ';
  const counts = (['missing', 'extra', 'different'] as const)
    .filter((kind) => table[kind] > 0)
    .map((kind) => `${atLeast}${grouped(table[kind])} ${kind}`);
  return `${sourceHash?.slice(0, hashPrefix)} ≠ ${destinationHash?.slice(0, hashPrefix)}  ${counts.join(', ')}`;
}

function describeKey({ kind, key, columns, count: copies }: KeyDifference): string {
  const values = Object.entries(key).map(([name, value]) => `${name}=${shownValue(value)}`);
  const which = columns.length > 0 ? `: ${columns.join(', ')}` : '';
  return `${kind.padEnd(9)}  ${values.join(' ')}${which}${copies > 1 ? ` (${copies} times)` : ''}`;
}

/** Control characters of a value must not reach a terminal. */
function shownValue(value: string | null): string {
  if (value === null) return 'NULL';
  const cut = value.length > shownValueLength ? `${value.slice(0, shownValueLength)}…` : value;
  return /^[\p{L}\p{N}._:+@/-]+$/u.test(cut) ? cut : JSON.stringify(cut).replace(/\p{C}/gu, '�');
}

function count(rows: number | null): string {
  return rows === null ? '–' : grouped(rows);
}

function grouped(value: number): string {
  return value.toLocaleString('en-US');
}

function seconds(milliseconds: number): string {
  return (milliseconds / 1000).toFixed(1);
}
