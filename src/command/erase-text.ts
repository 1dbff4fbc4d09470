/** What `tidemark erase` prints for a person. */
import type { ErasurePlan, ErasureReport } from '../retain/erase/erase.ts';
import type { DestinationReach } from '../retain/erase/reach.ts';
import type { TableCount } from '../retain/erase/scope.ts';

function beyondLines({ without, untracked }: Pick<ErasurePlan, 'without' | 'untracked'>): string[] {
  return [
    ...(without.length > 0 ? [`not looked at, for want of a tenant column: ${without.join(', ')}`] : []),
    ...untracked.map(
      ({ table, tombstones }) =>
        `not erased: ${tombstones} evicted rows of ${table}, which is not among source.tables: destinations keep them`,
    ),
  ];
}

export function erasurePlanText({
  tables,
  ...beyond
}: { tables: TableCount[] } & Pick<ErasurePlan, 'without' | 'untracked'>): string {
  const lines = tables.map(
    ({ table, hot, tombstones, held }) =>
      `${table}: ${hot} rows, ${tombstones} Tombstones${held > 0 ? '; under a legal hold, so nothing is erased' : ''}`,
  );
  return `${[...lines, ...beyondLines(beyond)].join('\n')}\n`;
}

export function erasureText(report: ErasureReport): string {
  const { erasure, tables, destinations, topics, interrupted } = report;
  const lines = [
    ...tables.flatMap(({ table, hot, tombstones, referred, streamed }) => [
      `${table}: ${hot} rows deleted, ${tombstones} Tombstones erased`,
      ...(referred > 0 ? [`  not erased: ${referred} rows that other rows refer to; erase those first`] : []),
      ...(streamed
        ? []
        : [
            '  its deletes are not in the stream, for want of a replica identity: destinations keep its rows',
          ]),
    ]),
    ...beyondLines(report),
    ...destinations.flatMap(destinationLines),
    ...topics.map(
      ({ topic, until }) =>
        `topic ${topic}: records from before are there ${until ? `until ${until.toISOString()}` : 'for ever (topic.retention)'}`,
    ),
    "not reached: the source's own backups, WAL archives and replicas; the keys in Tombstones, which stay as markers",
    ...(interrupted ? ['stopped: run it again, it goes on from here'] : []),
    `erasure ${erasure}`,
  ];
  return `${lines.join('\n')}\n`;
}

function destinationLines({ destination, row, waitsFor, left, quarantined }: DestinationReach): string[] {
  const states = {
    gone: 'the rows are gone',
    stays: 'the rows stay',
    unknown: 'not known',
    waiting: `not reached yet, it waits for ${waitsFor}: run this again to see`,
  };
  return [
    `${destination}: ${states[row]}`,
    ...left.map((each) => `  left: ${each}`),
    ...(quarantined > 0
      ? [`  left: ${quarantined} rows of these tables in Quarantine; drop them if they are among it`]
      : []),
  ];
}
