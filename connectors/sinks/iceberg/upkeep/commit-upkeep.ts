/**
 * The commit of a piece of upkeep, beside others who write to the table: made on the table as it is, and where somebody was
 * faster, made anew on that. It changes no rows, no schema and no property of the table.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { SinkContext } from '../../../../src/connector/sink.ts';
import type { TableCommit } from '../catalog/catalog.ts';
import { CommitConflict } from '../catalog/failures.ts';
import { settleCommit } from '../catalog/settle-commit.ts';
import { prepareCommit } from '../commit/prepare-commit.ts';
import { rebaseCommit } from '../commit/rebase-commit.ts';
import type { TableChange } from '../commit/table-change.ts';
import type { WriteSettings, WrittenFile } from '../files/write-data-files.ts';
import type { Lake, OpenTable } from '../lake.ts';
import type { IcebergSettings } from '../options.ts';
import type { KnownTable } from '../plan/row-finder.ts';
import type { TableCache } from '../plan/table-cache.ts';
import { PendingFiles } from '../progress/attempt.ts';
import { propertyNames } from '../progress/properties.ts';
import { windowInHistory } from '../progress/table-history.ts';
import { snapshotById, type TableMetadata } from '../spec/table-metadata.ts';
import { UpkeepRecord } from './upkeep-records.ts';

const tries = 20;

/** What a piece of upkeep works with. */
export interface UpkeepPlace {
  lake: Lake;
  context: SinkContext;
  settings: IcebergSettings;
  cache: TableCache;
  progress: OpenTable;
}

export interface UpkeepCommit {
  table: OpenTable;
  known: KnownTable;
  /** What is to be done to the table as it is now; null: what it was for is not there any more. */
  change(now: OpenTable): Promise<{ change: TableChange; files: readonly WrittenFile[] } | null>;
  /** Manifests of a spec from which on they are merged; null: as the table says. */
  leastManifests?: number;
}

/** @returns false where others changed what it was for: nothing was done. */
export async function commitUpkeep(
  { lake, context, cache, progress }: UpkeepPlace,
  { table, known, change: changeOf, leastManifests }: UpkeepCommit,
): Promise<boolean> {
  const files = new PendingFiles(table.store);
  const record = new UpkeepRecord(progress, table);
  const giveUp = async () => {
    await files.remove();
    await record.remove();
    return false;
  };
  // From then on only the table tells what became of it.
  let sent = false;
  try {
    for (let attempt = 1; ; attempt += 1) {
      const now = await lake.load(table.identifier);
      if (now === null || redefined(table.metadata, now.metadata)) return await giveUp();
      if (!(await record.stands())) return false;
      await known.live.advance(now.metadata);
      const made = await changeOf(now);
      if (made === null) return await giveUp();
      files.addLocal(made.files);
      for (const { file, localPath } of made.files)
        await cache.copies.keep(file.file_path, localPath, file.file_size_in_bytes);
      const { metadata } = now;
      const prepared = await prepareCommit(files, metadata, made.change);
      const rebased = await rebaseCommit(files, prepared, merging(metadata, leastManifests), known.live, {
        nowMs: Date.now(),
        summary: carriedOver(metadata),
      });
      if ('vanished' in rebased) return await giveUp();
      await record.willWrite(prepared.snapshotId, files.locations);
      await context.failpoint('iceberg-upkeep-recorded');
      await files.upload();
      await context.failpoint('iceberg-upkeep-before-commit');
      const { requirements, updates, written } = rebased;
      const commit = { identifier: now.identifier, requirements, updates } as unknown as TableCommit;
      sent = true;
      try {
        await settleCommit(lake.catalog, [commit]);
      } catch (error) {
        if (!(error instanceof CommitConflict)) throw error;
        // A proxy that sends a request twice is answered a conflict with the first one: then the table needs these files.
        if (!(await hasSnapshot(lake, now, prepared.snapshotId))) {
          sent = false;
          if (attempt === tries) return await giveUp();
          await sleep(10 * attempt * (1 + Math.random()));
          continue;
        }
      }
      await context.failpoint('iceberg-upkeep-committed');
      const used = new Set([
        ...written,
        ...prepared.manifests.map(({ manifest_path: path }) => path),
        ...[...made.change.added, ...made.change.deletes].map(({ file }) => file.file_path),
      ]);
      await table.store.delete(files.locations.filter((each) => !used.has(each)));
      await record.remove();
      return true;
    }
  } catch (error) {
    // Where the catalog may have made the commit, the record tells the next one what to look for.
    if (!sent) await giveUp().catch(() => undefined);
    throw error;
  }
}

async function hasSnapshot(lake: Lake, { identifier }: OpenTable, id: bigint): Promise<boolean> {
  const table = await lake.load(identifier);
  return table !== null && snapshotById(table.metadata, id) !== undefined;
}

function redefined(before: TableMetadata, now: TableMetadata): boolean {
  return (
    before['table-uuid'] !== now['table-uuid'] ||
    before['current-schema-id'] !== now['current-schema-id'] ||
    before['default-spec-id'] !== now['default-spec-id'] ||
    before['default-sort-order-id'] !== now['default-sort-order-id']
  );
}

function merging(metadata: TableMetadata, leastManifests: number | undefined): TableMetadata {
  if (leastManifests === undefined) return metadata;
  const properties = {
    ...metadata.properties,
    'commit.manifest-merge.enabled': 'true',
    'commit.manifest.min-count-to-merge': String(leastManifests),
  };
  return { ...metadata, properties };
}

/** The rows are those of the same Window as before; of a table that was rolled back, those of the one that it is at. */
function carriedOver(metadata: TableMetadata): Record<string, string> {
  const known = windowInHistory(metadata) ?? metadata.properties;
  return Object.fromEntries(
    [propertyNames.position, propertyNames.sequence].flatMap((name) =>
      known[name] === undefined ? [] : [[name, known[name]]],
    ),
  );
}

/** Of a folder of the call's own. */
export function writeSettings(settings: IcebergSettings, folder: string): WriteSettings {
  const { memoryBytes, rowGroupRows, targetFileBytes } = settings;
  return { folder, memoryBytes, rowGroupRows, targetFileBytes };
}
