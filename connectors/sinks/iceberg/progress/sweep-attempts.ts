/**
 * Removes what attempts left behind that never came into the tables. Before anything is removed each table of such an
 * attempt gets a snapshot: what was prepared on the one before is refused from then on, however late it comes.
 */
import { TidemarkError } from '../../../../src/connector/failure.ts';
import { CommitConflict } from '../catalog/failures.ts';
import type { Lake, OpenTable } from '../lake.ts';
import { removeUnnamed } from '../upkeep/reachable-files.ts';
import type { AttemptedTable, AttemptRecord } from './attempt.ts';
import { attemptsLocation } from './attempt.ts';
import { fence } from './progress-table.ts';
import { propertyNames } from './properties.ts';

const fenceTries = 10;

/** @returns how many files were removed */
export async function sweepAttempts(lake: Lake, progress: OpenTable, token: bigint): Promise<number> {
  const records: string[] = [];
  for await (const page of progress.store.list(attemptsLocation(progress.metadata)))
    records.push(...page.map(({ location }) => location));
  let removed = 0;
  for (const location of records) {
    const body = await progress.store.get(location);
    if (body === null) continue;
    const record = readRecord(body);
    // A record that was cut off by a crash came before its first file.
    if (record && BigInt(record.token) > token) continue;
    for (const table of record?.tables ?? []) removed += await sweepTable(lake, table, record!, token);
    await progress.store.delete([location]);
  }
  return removed;
}

function readRecord(body: Buffer): AttemptRecord | null {
  try {
    return JSON.parse(body.toString('utf8')) as AttemptRecord;
  } catch {
    return null;
  }
}

async function sweepTable(
  lake: Lake,
  attempted: AttemptedTable,
  record: AttemptRecord,
  token: bigint,
): Promise<number> {
  for (let tries = 1; ; tries += 1) {
    const table = await lake.load(attempted.identifier);
    if (table === null || table.metadata['table-uuid'] !== attempted.uuid) return 0;
    const state = await stateOf(lake, table, attempted, record);
    if (state === 'committed') {
      const lists = new Set(table.metadata.snapshots.map((each) => each['manifest-list']));
      const unused = attempted.files.filter((each) => /\/snap-[^/]*$/.test(each) && !lists.has(each));
      await table.store.delete(unused);
      return unused.length;
    }
    // Its own snapshot may have expired, and its files be in none but an older one that a tag keeps.
    if (state === 'impossible') return removeUnnamed(table, attempted.files);
    try {
      const own = BigInt(table.metadata.properties[propertyNames.token] ?? 0);
      if (own > token) throw new TidemarkError('TM403', 'a table has a newer owner');
      await fence(lake, table, { [propertyNames.token]: String(token) });
    } catch (error) {
      if (!(error instanceof CommitConflict) || tries === fenceTries) throw error;
      continue;
    }
    const after = await lake.load(attempted.identifier);
    if (after === null || (await stateOf(lake, after, attempted, record)) === 'committed') continue;
    await after.store.delete(attempted.files);
    return attempted.files.length;
  }
}

async function stateOf(
  lake: Lake,
  table: OpenTable,
  { snapshotId, files }: AttemptedTable,
  { id, sequence }: AttemptRecord,
): Promise<'committed' | 'impossible' | 'open'> {
  const { properties, snapshots } = table.metadata;
  if (properties[propertyNames.attempt] === id) return 'committed';
  if (snapshots.some((each) => String(each['snapshot-id']) === snapshotId)) return 'committed';
  // Its snapshot may have been expired since, and its files be there still.
  const live = await lake.live(table);
  if (files.some((each) => live.dataFile(each) || live.deleteFile(each))) return 'committed';
  return Number(properties[propertyNames.sequence] ?? 0) >= sequence ? 'impossible' : 'open';
}
