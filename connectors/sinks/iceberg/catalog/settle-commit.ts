/**
 * Commits whose outcome got lost on the way: the tables are read again, and what did not arrive is sent again as it was.
 *
 * Sending again is safe because requirements that hold before a commit do not hold after it (`assert-ref-snapshot-id`,
 * `assert-create`): where the lost commit arrives late, one of the two is refused. Commits without such a requirement
 * must not be settled here.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Catalog, LoadedTable, TableCommit } from './catalog.ts';
import { isObject, type Json, sameLong } from './exact-json.ts';
import { CommitConflict, CommitStateUnknown } from './failures.ts';

/** A server that asks for more gets the Window again later. */
const longestPauseMs = 30_000;

export interface SettleOptions {
  /** Times that the commit is sent, at most. */
  tries?: number;
  /** Before the tables are read again: a commit that is still being made gets time to be finished. */
  pauseMs?: number;
  /** Whether a table's state has this commit in it; by default, whether it has the snapshots that the commit adds. */
  landed?: (table: LoadedTable, commit: TableCommit) => boolean;
}

/**
 * As Catalog.commit; outcomes that got lost are found out. After a failure the tables may hold the commit, or, where the
 * catalog makes several tables' changes one after the other, parts of it.
 * @throws CommitStateUnknown where the catalog does not come back, CommitConflict where somebody else was faster
 */
export async function settleCommit(
  catalog: Catalog,
  commits: readonly TableCommit[],
  { tries = 4, pauseMs = 250, landed = hasSnapshots }: SettleOptions = {},
): Promise<(LoadedTable | null)[]> {
  const known: (LoadedTable | null)[] = commits.map(() => null);
  const arrived = commits.map(() => false);
  let lost = false;
  for (let attempt = 1; ; attempt += 1) {
    const left = commits.filter((_commit, i) => !arrived[i]);
    if (left.length === 0) return known;
    let failure: CommitConflict | CommitStateUnknown;
    try {
      const states = await catalog.commit(left);
      commits.forEach((_commit, i) => {
        if (!arrived[i]) known[i] = states.shift() ?? null;
      });
      return known;
    } catch (error) {
      // After a lost outcome a conflict may be with that very commit.
      const own = error instanceof CommitStateUnknown || (lost && error instanceof CommitConflict);
      if (!own) throw error;
      lost = true;
      failure = error;
    }
    // A conflict is decided already.
    if (failure instanceof CommitStateUnknown) await sleep(pauseOf(failure, pauseMs * 2 ** (attempt - 1)));
    let more = false;
    for (const [i, commit] of commits.entries()) {
      if (arrived[i]) continue;
      const table = await catalog.loadTable(commit.identifier).catch(() => {
        throw failure;
      });
      if (table === null || !landed(table, commit)) continue;
      arrived[i] = true;
      known[i] = table;
      more = true;
    }
    // A conflict with nothing of ours in the tables is somebody else's.
    if ((failure instanceof CommitConflict && !more) || attempt === tries) {
      if (!arrived.includes(false)) return known;
      throw failure;
    }
  }
}

function pauseOf({ retryAfterMs }: CommitStateUnknown, otherwiseMs: number): number {
  return retryAfterMs === null ? otherwiseMs : Math.min(retryAfterMs, longestPauseMs);
}

/** The table has every snapshot that the commit adds, which is at least one. */
export function hasSnapshots({ metadata }: LoadedTable, commit: TableCommit): boolean {
  const added = commit.updates.flatMap((update) =>
    update.action === 'add-snapshot' ? [snapshotId(update.snapshot)] : [],
  );
  const present = (Array.isArray(metadata.snapshots) ? metadata.snapshots : []).map(snapshotId);
  return (
    added.length > 0 &&
    added.every((id) => id !== null && present.some((each) => each !== null && sameLong(each, id)))
  );
}

function snapshotId(snapshot: unknown): number | bigint | null {
  const id: Json | undefined = isObject(snapshot) ? snapshot['snapshot-id'] : undefined;
  return typeof id === 'number' || typeof id === 'bigint' ? id : null;
}
