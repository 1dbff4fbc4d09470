/** Destinations and their deliveries for people. */
import type { DeliveryRecord, DestinationRecord } from '../deliver/destination-list.ts';
import { bytes, seconds } from './status-text.ts';

export function destinationText(
  { name, kind, pause, credentials, quarantined, failure, units }: DestinationRecord,
  deliveries: readonly DeliveryRecord[],
): string {
  const lines = [`destination ${name} (${kind}), credentials version ${credentials.version}`];
  if (credentials.problem !== null)
    lines.push(
      `  ! newer credentials are refused, those from before stay in use: ${credentials.problem}`,
      '    → Correct them in the instance file, or in what it refers to; it is read again every 10 s.',
    );
  if (pause)
    lines.push(
      `  ‖ paused since ${pause.at.toISOString()} by ${pause.by}: ${pause.reason}`,
      `    → tidemark destination resume ${name}`,
    );
  if (quarantined > 0)
    lines.push(
      `  ! ${quarantined} rows are in Quarantine`,
      `    → tidemark quarantine list --destination ${name}`,
    );
  if (failure) lines.push(`  ✗ ${failure.code}: ${failure.message}`, `    → ${failure.remedy}`);
  const width = Math.max(0, ...units.map(({ unit }) => unit.length));
  for (const unit of units) {
    const open = unit.open > 0 ? ', 1 open' : '';
    lines.push(
      `  ${unit.failure ? '✗' : '✓'} ${unit.unit.padEnd(width)}  ${unit.mark ?? '—'}  ${unit.windows} Windows${open}`,
    );
    if (!unit.failure) continue;
    const { code, message, remedy, since, failures, nextAttemptAt } = unit.failure;
    lines.push(`      ${code}: ${message}`, `        → ${remedy}`);
    if (since)
      lines.push(
        `        failed ${failures} times since ${since.toISOString()}; next attempt ${nextAttemptAt?.toISOString() ?? 'now'}`,
      );
  }
  if (deliveries.length > 0) lines.push('  newest deliveries');
  for (const delivery of deliveries) lines.push(`  ${deliveryLine(delivery)}`);
  return `${lines.join('\n')}\n`;
}

function deliveryLine({
  unit,
  sequence,
  to,
  state,
  attempts,
  durationMs,
  failure,
  receipt,
}: DeliveryRecord): string {
  const head = `${unit} #${sequence} up to ${to}`;
  if (state === 'decided')
    return `… ${head}: ${attempts === 0 ? 'under way' : `${attempts} attempts${failure ? `, ${failure.code}` : ''}`}`;
  const { upserted, deleted, appended } = receipt!.rows;
  const counts = [
    [upserted, 'upserted'],
    [deleted, 'deleted'],
    [appended, 'appended'],
  ] as const;
  const rows = counts.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
  const took = durationMs === null ? '' : ` in ${seconds(durationMs / 1000)}`;
  return `✓ ${head}: ${rows.join(', ') || 'no rows'}, ${bytes(receipt!.bytes)}${took}, commit ${receipt!.commitId}`;
}
