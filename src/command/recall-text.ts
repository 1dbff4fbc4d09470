/** What `tidemark recall` prints for a person. */
import type { listOpen } from '../retain/open-tombstones.ts';
import type { RecallSummary } from '../retain/recall-rows.ts';
import type { ColumnsDiffer } from '../retain/row-columns.ts';

const shownRefusals = 10;

export function listText({
  table,
  total,
  lost,
  oldest,
  newest,
  rows,
}: { table: string } & Awaited<ReturnType<typeof listOpen>>): string {
  if (total === 0) return `no row of ${table} is at destinations alone\n`;
  const lines = rows.map(
    ({ key, tenant, evictedAt, destinations, lost }) =>
      `${key}  evicted ${evictedAt}${tenant === null ? '' : `, tenant ${tenant}`}, at ${destinations.join(', ') || 'no destination'}${lost ? `; ${lost}` : ''}`,
  );
  if (rows.length < total) lines.push(`and ${total - rows.length} more (--limit)`);
  lines.push(
    `${total} rows of ${table}, evicted ${oldest} to ${newest}${lost > 0 ? `; ${lost} cannot be recalled` : ''}`,
  );
  return `${lines.join('\n')}\n`;
}

export function progressText(done: number, of: number, destination: string, elapsedMs: number): string {
  const rate = done / (elapsedMs / 1000);
  const left = rate > 0 ? `, ${Math.ceil((of - done) / rate)} s left` : '';
  return `${done} of ${of} rows recalled from ${destination}, ${Math.round(rate)} rows/s${left}\n`;
}

export function summaryText(summary: RecallSummary & { seconds: number }): string {
  const { table, recalled, from, already, refused, refusals, altered, forfeited, dropped, unread } = summary;
  const sources = Object.entries(from).map(([name, rows]) => `${rows} from ${name}`);
  const lines = [
    `${table}: ${recalled} rows recalled${sources.length > 0 ? ` (${sources.join(', ')})` : ''} in ${summary.seconds} s, their hashes are those of their Tombstones`,
    ...(already > 0 ? [`${already} had come back before`] : []),
    ...(forfeited.length > 0 ? [`gone for good, back as their defaults: ${forfeited.join(', ')}`] : []),
    ...(dropped.length > 0 ? [`the source has no more: ${dropped.join(', ')}`] : []),
    ...unread.map(
      ({ destination, code, message }) => `${destination} could not be read: ${code}: ${message}`,
    ),
    ...altered
      .slice(0, shownRefusals)
      .map(
        ({ key, destination, differing }) =>
          `${destination} has ${key} otherwise, in ${differing?.join(', ')}`,
      ),
    ...Object.entries(refused).map(([reason, rows]) => `refused: ${rows} rows, ${reason}`),
    ...refusals
      .slice(0, shownRefusals)
      .flatMap(({ key, reason, columns }) => [
        `  ${key}: ${reason}`,
        ...(columns ? differText(columns).map((line) => `    ${line}`) : []),
      ]),
    ...(summary.interrupted ? ['stopped: run it again, it goes on from here'] : []),
  ];
  return `${lines.join('\n')}\n`;
}

function differText({ covered, held, missing, renamed, retyped }: ColumnsDiffer): string[] {
  return [
    `as it was let go of: ${covered.join(', ')}`,
    `as it is there:      ${held.join(', ')}`,
    ...(missing.length > 0 ? [`not there: ${missing.join(', ')}`] : []),
    ...(renamed.length > 0 ? [`renamed since: ${renamed.join(', ')}`] : []),
    ...(retyped.length > 0 ? [`of another type since: ${retyped.join(', ')}`] : []),
  ];
}
