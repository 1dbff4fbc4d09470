/** `tidemark maintain`: the steps of the upkeep, table by table. */
import { TidemarkError } from '../../../../src/connector/failure.ts';
import type { UpkeepDone, UpkeepRequest, UpkeepStep } from '../../../../src/connector/sink.ts';
import { type TableIdentifier, tableText } from '../catalog/catalog.ts';
import type { OpenTable } from '../lake.ts';
import { identifierOf } from '../names.ts';
import type { UpkeepPlace } from './commit-upkeep.ts';
import { compactTable } from './compact-table.ts';
import { expireSnapshots } from './expire-snapshots.ts';
import { mergeTableManifests } from './merge-table-manifests.ts';
import { type FoundTables, findTables } from './own-tables.ts';
import { removeOrphans } from './remove-orphans.ts';
import { sweepUpkeep } from './upkeep-records.ts';

/** Small files of a partition from which on an operator's run merges them. */
const leastFiles = 2;
const mostFiles = 256;
const mostBytes = 512 * 1024 * 1024;

export async function maintain(place: UpkeepPlace, request: UpkeepRequest): Promise<UpkeepDone[]> {
  const { lake, context, settings, progress } = place;
  const removed = request.dryRun ? 0 : await sweepUpkeep(lake, progress);
  if (removed > 0)
    context.log('info', 'removed files of upkeep that did not come to its end', { files: removed });
  const found = await findTables(lake, settings.namespace, context);
  const done: UpkeepDone[] = [];
  for (const identifier of chosen(found, place, request)) {
    for (const step of request.steps) {
      if (request.signal.aborted) return done;
      const table = await lake.load(identifier);
      // Dropped meanwhile.
      if (table === null) break;
      const result = await runStep(place, step, table, found, request);
      if (result === null) continue;
      done.push(result);
      request.onProgress(result);
    }
  }
  return done;
}

function chosen(
  { own }: FoundTables,
  { settings }: UpkeepPlace,
  { tables }: UpkeepRequest,
): TableIdentifier[] {
  const all = own.map(({ identifier }) => identifier);
  if (tables === null) return all;
  return tables.flatMap((id) => {
    const base = identifierOf(settings.namespace, id);
    const names = new Set([tableText(base), tableText({ ...base, name: `${base.name}_changes` })]);
    const matching = all.filter((each) => names.has(tableText(each)));
    if (matching.length > 0) return matching;
    throw new TidemarkError('TM101', `the destination has no table for ${id.schema}.${id.name}`, {
      remedy: `It has ${all.map(tableText).join(', ') || 'none yet'}.`,
    });
  });
}

async function runStep(
  place: UpkeepPlace,
  step: UpkeepStep,
  table: OpenTable,
  { own, others }: FoundTables,
  request: UpkeepRequest,
): Promise<UpkeepDone | null> {
  const { dryRun, signal } = request;
  // It has neither rows nor a history that is of use: every Window keeps it short.
  const isProgress = table.metadata['table-uuid'] === place.progress.metadata['table-uuid'];
  if (isProgress && step !== 'orphans') return null;
  const done = (counts: Record<string, number>, left: string | null = null): UpkeepDone => ({
    table: tableText(table.identifier),
    step,
    counts,
    left,
  });
  switch (step) {
    case 'compact': {
      const { targetFileBytes } = place.settings;
      const rules = {
        targetFileBytes,
        leastFiles,
        deleteRatio: request.deleteRatio,
        mostFiles,
        mostBytes: Math.max(mostBytes, 4 * targetFileBytes),
      };
      const limits = { goOn: () => !signal.aborted, dryRun };
      const { left, ...counts } = await compactTable(place, table, rules, limits);
      return done(counts, left);
    }
    case 'manifests':
      return done({ ...(await mergeTableManifests(place, table, dryRun)) });
    case 'expire': {
      const rules = { maxAgeMs: request.expireAfterMs, keepLast: request.keepLast };
      const { left, ...counts } = await expireSnapshots(place, table, rules, dryRun);
      return done(counts, left);
    }
    case 'orphans': {
      const uuid = table.metadata['table-uuid'];
      const elsewhere = [
        ...others,
        ...own
          .filter(({ metadata }) => metadata['table-uuid'] !== uuid)
          .map(({ metadata }) => metadata.location),
      ];
      const { left, ...counts } = await removeOrphans(place, table, elsewhere, request.orphanAgeMs, dryRun);
      return done(counts, left);
    }
  }
}
