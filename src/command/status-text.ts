/** The status report for people. */
import { withheldText } from '../replicate/withheld-columns.ts';
import { snapshotLines } from './snapshot-text.ts';
import type { Problem, StatusReport, UnitStatus } from './status.ts';

export function renderStatus(report: StatusReport): string {
  const lines: string[] = [];
  const { source, progress, snapshots, destinations, units, waiting, problems } = report;
  /** Of what does not answer nothing is known, and its problem is below. */
  const answers = (part: string) => !problems.some((problem) => problem.part === part);
  lines.push(`source ${source.id}${source.epoch === null ? '' : ` (epoch ${source.epoch})`}`);
  if (source.slot) {
    const { name, active, confirmedLsn, retainedWalBytes, walStatus, walBudgetBytes } = source.slot;
    lines.push(
      `  slot ${name}: ${active ? 'active' : 'NOT ACTIVE'}, confirmed ${confirmedLsn}, keeps ${bytes(retainedWalBytes)}${walBudgetBytes === null ? '' : ` of ${bytes(walBudgetBytes)}`} of WAL (${walStatus})`,
    );
  } else if (answers('source')) lines.push('  no slot');
  if (progress) {
    lines.push(
      `  Progress ${progress.position}: ${seconds(progress.lagSeconds)} behind${progress.lagBytes === null ? '' : `, ${bytes(progress.lagBytes)}`}`,
    );
    for (const { table, code, reason } of progress.parked)
      lines.push(`  ✗ ${table} is parked (${code}): ${reason}`, `    → tidemark resume ${table}`);
  } else if (answers('kafka')) lines.push('  no Progress');
  for (const line of withheldText(report.withheld ?? [])) lines.push(`  withheld from ${line}`);
  if (source.problem) lines.push(...problemLines(source.problem, '  '));
  if (snapshots.length > 0) lines.push('snapshots');
  const tables = Math.max(0, ...snapshots.map(({ table }) => table.length));
  for (const snapshot of snapshots) lines.push(...snapshotLines(snapshot, tables).map((line) => `  ${line}`));
  const width = Math.max(0, ...units.map(({ unit }) => unit.length));
  for (const { name, paused, quarantined, problem } of destinations) {
    lines.push(`destination ${name}`);
    if (paused)
      lines.push(
        `  ‖ paused since ${paused.at} by ${paused.by}: ${paused.reason}`,
        `    → tidemark destination resume ${name}`,
      );
    if (quarantined > 0)
      lines.push(
        `  ! ${quarantined} rows are in Quarantine`,
        `    → tidemark quarantine list --destination ${name}`,
      );
    if (problem) lines.push(...problemLines(problem, '  ✗ '));
    for (const unit of units.filter((each) => each.destination === name))
      lines.push(...unitLines(unit, width));
  }
  for (const name of waiting)
    lines.push(
      `destination ${name}`,
      '  no worker has delivered to it yet',
      '    → start `tidemark run`; one that runs since before the instance file was there has to be started anew',
    );
  for (const problem of problems) lines.push(`✗ ${problem.part}`, ...problemLines(problem, '  '));
  return `${lines.join('\n')}\n`;
}

function unitLines({ unit, mark, lagSeconds, lagBytes, windows, open, problem }: UnitStatus, width: number) {
  const lag =
    lagSeconds === null
      ? 'nothing delivered yet'
      : `${seconds(lagSeconds)} behind${lagBytes === null ? '' : `, ${bytes(lagBytes)}`}`;
  return [
    `  ${problem ? '✗' : '✓'} ${unit.padEnd(width)}  ${mark ?? '—'}  ${lag}; ${windows} Windows${open > 0 ? ', 1 open' : ''}`,
    ...(problem ? problemLines(problem, '      ') : []),
  ];
}

function problemLines({ code, error, remedy }: Problem, indent: string): string[] {
  return [`${indent}${code}: ${error}`, `${' '.repeat(indent.length)}  → ${remedy}`];
}

export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

export function seconds(count: number): string {
  if (count < 10) return `${count.toFixed(1)} s`;
  if (count < 120) return `${Math.round(count)} s`;
  if (count < 7200) return `${Math.round(count / 60)} min`;
  return `${(count / 3600).toFixed(1)} h`;
}
