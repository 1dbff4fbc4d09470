/**
 * The commit of a Window: all its tables, and last of all what the destination holds. Where the catalog commits tables
 * together a reader sees all of them at once. Where it does not, or only pretends to, a crash may leave some tables with the
 * Window and others without: each says so itself, and the next try leaves those alone that have it.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type LoadedTable, tableText } from './catalog/catalog.ts';
import { isObject } from './catalog/exact-json.ts';
import { CommitConflict } from './catalog/failures.ts';
import { settleCommit } from './catalog/settle-commit.ts';
import {
  type Attempted,
  commitOf,
  type PreparedTable,
  rebaseTable,
  StaleMerge,
} from './commit/table-commit.ts';
import type { Lake } from './lake.ts';
import type { Attempt, PendingFiles } from './progress/attempt.ts';
import { checkToken } from './progress/progress-table.ts';
import { propertyNames, type WindowHead } from './progress/properties.ts';
import { checkHistory } from './progress/table-history.ts';

const tries = 20;

export interface WindowTable {
  table: PreparedTable;
  files: PendingFiles;
}

/** @throws StaleMerge, CommitConflict, CommitStateUnknown, TidemarkError TM403 */
export async function commitWindow(
  lake: Lake,
  window: WindowHead,
  attempt: Attempt,
  tables: WindowTable[],
  failpoint: (name: string) => Promise<void>,
): Promise<void> {
  let left = tables;
  const written: string[] = [];
  const used = new Set<string>();
  for (let attempted = 1; ; attempted += 1) {
    const commits: Attempted[] = [];
    for (const { table, files } of left) commits.push(await commitOf(files, table));
    await attempt.upload();
    written.push(...commits.flatMap((each) => each.written));
    if (attempted === 1) await failpoint('iceberg-sink-before-commit');
    attempt.sent = true;
    const use = ({ written: own }: Attempted) => own.forEach((location) => void used.add(location));
    try {
      await commitAll(lake, attempt, commits, failpoint);
      commits.forEach(use);
      break;
    } catch (error) {
      if (!(error instanceof CommitConflict) || error instanceof StaleMerge || attempted === tries)
        throw error;
      const missing = await rebased(lake, window, attempt, left);
      // Those that came in before others did not.
      left.forEach(({ table: { table } }, i) => {
        if (!missing.some((each) => each.table.table.identifier === table.identifier)) use(commits[i]!);
      });
      left = missing;
      if (left.length === 0) break;
      await sleep(10 * attempted * (1 + Math.random()));
    }
  }
  await failpoint('iceberg-sink-committed');
  // What is not removed now, a later owner finds by the record.
  await attempt
    .committed(used.size > 0 ? written.filter((each) => !used.has(each)) : [])
    .catch(() => undefined);
}

/** @throws CommitConflict where some of it, or all, did not come in */
async function commitAll(
  { catalog }: Lake,
  { id }: Attempt,
  commits: readonly Attempted[],
  failpoint: (name: string) => Promise<void>,
): Promise<void> {
  const all = commits.map(({ commit }) => commit);
  if (!catalog.commitsTogether) {
    for (const commit of all) await settleCommit(catalog, [commit]);
    return;
  }
  const tables = all.slice(0, -1);
  if (tables.length > 0) await settleCommit(catalog, tables);
  // Iceberg's own catalog server answers that all is well where a table's commit was overtaken by somebody else's.
  if (tables.length > 1) {
    const states = await Promise.all(tables.map(({ identifier }) => catalog.loadTable(identifier)));
    const lost = states.findIndex((each) => attemptOf(each) !== id);
    if (lost >= 0) throw new CommitConflict(`commit ${tableText(tables[lost]!.identifier)}`);
  }
  await failpoint('iceberg-sink-tables-committed');
  await settleCommit(catalog, all.slice(-1));
}

function attemptOf(table: LoadedTable | null): unknown {
  const properties = table?.metadata.properties;
  return isObject(properties) ? properties[propertyNames.attempt] : undefined;
}

/** The tables that do not hold the Window yet, as they are now. */
async function rebased(
  lake: Lake,
  window: WindowHead,
  attempt: Attempt,
  tables: readonly WindowTable[],
): Promise<WindowTable[]> {
  const left: WindowTable[] = [];
  for (const { table, files } of tables) {
    const now = await lake.load(table.table.identifier);
    if (now === null) throw new StaleMerge(table.table.identifier.name);
    checkToken(now, window.fencingToken, window);
    if (now.metadata.properties[propertyNames.attempt] === attempt.id) continue;
    checkHistory(now);
    if (Number(now.metadata.properties[propertyNames.sequence] ?? 0) >= window.sequence)
      throw new StaleMerge(table.table.identifier.name);
    left.push({ table: await rebaseTable(table, now), files });
  }
  return left;
}
