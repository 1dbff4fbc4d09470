/** Many small manifests become few: planning a query reads all of them. */
import { wouldMerge } from '../commit/merge-manifests.ts';
import type { OpenTable } from '../lake.ts';
import { hasLiveFiles } from '../plan/table-reader.ts';
import { commitUpkeep, type UpkeepPlace } from './commit-upkeep.ts';

export interface MergedManifests {
  manifestsBefore: number;
  manifestsAfter: number;
}

/** From here on they are merged. */
const leastManifests = 2;

export async function mergeTableManifests(
  place: UpkeepPlace,
  table: OpenTable,
  dryRun: boolean,
): Promise<MergedManifests> {
  const { lake } = place;
  const known = await lake.known(table, []);
  const before = known.live.manifests.length;
  const base = known.live.manifests.filter(hasLiveFiles);
  const wanted = wouldMerge(table.metadata, base, leastManifests) || base.length < before;
  if (dryRun || !wanted) return { manifestsBefore: before, manifestsAfter: before };
  await commitUpkeep(place, {
    table,
    known,
    leastManifests,
    change: async () => ({
      change: { added: [], deletes: [], removed: [], keepsRows: true },
      files: [],
    }),
  });
  const now = await lake.load(table.identifier);
  const after = now === null ? before : (await lake.live(now)).manifests.length;
  return { manifestsBefore: before, manifestsAfter: after };
}
