/** Small files of a table become few, commit by commit: what was done stays done, whatever ends the rest. */
import { randomUUID } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { duckdbFailure } from '../../../object-log/duckdb-failure.ts';
import { dataLocation } from '../commit/locations.ts';
import { openDatabase } from '../files/database.ts';
import { writePositionDeletes } from '../files/write-position-deletes.ts';
import type { OpenTable } from '../lake.ts';
import { Layout } from '../merge/layout.ts';
import { memoryKey } from '../options.ts';
import type { LiveFile } from '../plan/live-file.ts';
import { PositionTable } from '../plan/position-table.ts';
import type { KnownTable } from '../plan/row-finder.ts';
import { TableColumns } from '../plan/table-columns.ts';
import { boundSpec } from '../plan/table-reader.ts';
import { propertyNames } from '../progress/properties.ts';
import { fileContent } from '../spec/data-file.ts';
import { visitFields } from '../spec/schema.ts';
import { currentSchema } from '../spec/table-metadata.ts';
import { commitUpkeep, type UpkeepPlace, writeSettings } from './commit-upkeep.ts';
import { type CompactionRules, type FileGroup, planDeleteMerges, planRewrites } from './plan-compaction.ts';
import { StagedFiles } from './staged-files.ts';

export interface CompactionLimits {
  /** Asked before each commit: whether there is time for another. */
  goOn(): boolean;
  dryRun: boolean;
  /** Do not read the files of deletes only to see how much is deleted. */
  onlyCrowded?: boolean;
}

export interface Compacted {
  filesBefore: number;
  filesAfter: number;
  deleteFilesBefore: number;
  deleteFilesAfter: number;
  bytesRewritten: number;
  commits: number;
  left: string | null;
}

/** Groups that others changed while they were written, in a row. */
const mostLost = 5;

type Work = { kind: 'rows'; files: FileGroup } | { kind: 'deletes'; partitions: string[] };

export async function compactTable(
  place: UpkeepPlace,
  first: OpenTable,
  rules: CompactionRules,
  { goOn, dryRun, onlyCrowded = false }: CompactionLimits,
): Promise<Compacted> {
  const { lake, context, settings } = place;
  let table = first;
  let known = await knownOf(place, table);
  const done: Compacted = {
    ...countsOf(known, 'Before'),
    ...countsOf(known, 'After'),
    bytesRewritten: 0,
    commits: 0,
    left: reasonToLeave(table),
  };
  if (done.left !== null) return done;
  const folder = join(context.scratchDirectory, `upkeep-${randomUUID()}`);
  await mkdir(folder, { recursive: true });
  const database = await openDatabase(folder, settings.memoryBytes);
  let lost = 0;
  const settled = new Set<string>();
  try {
    for (let number = 0; ; number += 1) {
      const columns = new TableColumns(database.connection, table, place.cache.copies);
      if (!onlyCrowded) await loadDeletes(known, columns);
      const work = planWork(known, rules, settled, settings.deleteGranularity === 'file');
      if (work === null) break;
      if (dryRun || !goOn()) {
        done.left = dryRun ? 'nothing was done: this only tells what there is to do' : 'out of time';
        if (dryRun) done.bytesRewritten = work.kind === 'rows' ? bytesOf(work.files) : 0;
        break;
      }
      const writing = { place, table, known, columns, folder: join(folder, String(number)) };
      const succeeded =
        work.kind === 'rows'
          ? await rewriteRows(writing, work.files, settled)
          : await mergeDeletes(writing, work.partitions);
      await rm(writing.folder, { recursive: true, force: true });
      await place.cache.trimCopies();
      if (succeeded) {
        done.commits += 1;
        if (work.kind === 'rows') done.bytesRewritten += bytesOf(work.files);
      }
      lost = succeeded ? 0 : lost + 1;
      const now = await lake.load(table.identifier);
      if (now === null) break;
      table = now;
      known = await knownOf(place, table);
      if (lost >= mostLost) {
        done.left = 'others changed the same files again and again';
        break;
      }
    }
  } catch (error) {
    throw duckdbFailure(error, 'rewrite files', memoryKey);
  } finally {
    database.close();
    await rm(folder, { recursive: true, force: true });
  }
  return { ...done, ...countsOf(known, 'After') };
}

/** By the same bounds as Windows look rows up with, so that the table's files are read once for both. */
function knownOf({ lake }: UpkeepPlace, table: OpenTable): Promise<KnownTable> {
  const layout = table.metadata.properties[propertyNames.layout];
  return lake.known(table, layout === undefined ? [] : Layout.parse(layout).keyIds);
}

/** Null where it can be compacted. */
function reasonToLeave({ metadata }: OpenTable): string | null {
  if (metadata['format-version'] !== 2) return 'it has format version 1';
  let found: string | null = null;
  visitFields(currentSchema(metadata), ({ type }) => {
    // Fields within a struct would have to be matched by their ids.
    if (typeof type !== 'string' && type.type === 'struct') found = 'it has columns of structs';
    else if (typeof type === 'string' && type.startsWith('fixed')) found = 'it has columns of the type fixed';
  });
  return found;
}

async function loadDeletes({ live, deleted }: KnownTable, columns: TableColumns): Promise<void> {
  const concerned = [...live.dataFiles()].filter((file) => live.deletesOf(file).length > 0);
  await deleted.load(concerned, columns);
}

function planWork(
  { live, deleted }: KnownTable,
  rules: CompactionRules,
  settled: ReadonlySet<string>,
  perFile: boolean,
): Work | null {
  const deletedRows = ({ path }: LiveFile) => deleted.count(path);
  const [files] = planRewrites(live, deletedRows, rules, settled);
  if (files) return { kind: 'rows', files };
  const partitions = planDeleteMerges(live, deletedRows, rules, perFile);
  return partitions.length === 0
    ? null
    : { kind: 'deletes', partitions: partitions.slice(0, rules.mostFiles) };
}

interface Writing {
  place: UpkeepPlace;
  table: OpenTable;
  known: KnownTable;
  columns: TableColumns;
  folder: string;
}

async function rewriteRows(
  { place, table, known, columns, folder }: Writing,
  files: FileGroup,
  settled: Set<string>,
): Promise<boolean> {
  const { live, deleted } = known;
  const { settings, cache, context } = place;
  const staged = await StagedFiles.stage(table, files, columns, deleted);
  let written = await staged.write(writeSettings(settings, join(folder, 'rows')));
  const specId = table.metadata['default-spec-id'];
  const added = written.map(({ file }) => ({ file, specId }));
  const sources = new Set(files.map(({ path }) => path));
  // Whatever the sizes are that this gives: written once more they would be the same.
  if (written.length >= files.length) for (const { file } of written) settled.add(file.file_path);
  await context.failpoint('iceberg-upkeep-rewritten');
  return commitUpkeep(place, {
    table,
    known,
    async change(now) {
      const here = files.map(({ path }) => live.dataFile(path));
      if (here.includes(undefined)) return null;
      const nowColumns = new TableColumns(columns.connection, now, cache.copies);
      const deletes = await staged.laterDeletes(
        nowColumns,
        deleted,
        writeSettings(settings, join(folder, randomUUID())),
      );
      const change = {
        // Everything that was deleted so far has left them, so that they are as new as the commit.
        added,
        deletes,
        removed: [...sources],
        removedDeletes: deleted.namingOnly(sources),
        keepsRows: true,
      };
      const fresh = [...written, ...deletes];
      written = [];
      return { change, files: fresh };
    },
  });
}

/** All position deletes of some partitions in a file for each. */
async function mergeDeletes(
  { place, table, known, columns, folder }: Writing,
  partitions: readonly string[],
): Promise<boolean> {
  const { live, deleted } = known;
  const { settings, cache } = place;
  return commitUpkeep(place, {
    table,
    known,
    async change(now) {
      const nowColumns = new TableColumns(columns.connection, now, cache.copies);
      const files = partitions.flatMap((key) => [...live.dataFilesIn(key)]);
      await deleted.load(files, nowColumns);
      const positions = new PositionTable();
      const targets: LiveFile[] = [];
      for (const file of files) {
        if (deleted.count(file.path) === 0) continue;
        targets.push(file);
        for (let row = 0; row < file.records; row += 1)
          if (deleted.isDeleted(file.path, row)) positions.add(0, file.path, row);
      }
      const own = new Set(partitions);
      const removedDeletes = [...live.deleteFiles()]
        .filter((each) => each.content === fileContent.positionDeletes && own.has(each.partitionKey))
        .map(({ path }) => path);
      await positions.toTable(columns.connection, 'upkeep_positions');
      const target = join(folder, randomUUID());
      await mkdir(target, { recursive: true });
      const deletes = await writePositionDeletes(
        columns.connection,
        'upkeep_positions',
        targets.map(({ path, specId, partition }) => ({
          path,
          specId,
          fields: boundSpec(now.metadata, specId),
          partition,
        })),
        dataLocation(now.metadata),
        settings.deleteGranularity,
        writeSettings(settings, target),
      );
      const change = { added: [], deletes, removed: [], removedDeletes, keepsRows: true };
      return { change, files: deletes };
    },
  });
}

function countsOf<Suffix extends 'Before' | 'After'>(
  { live }: KnownTable,
  suffix: Suffix,
): Record<`files${Suffix}` | `deleteFiles${Suffix}`, number> {
  const [files, deleteFiles] = [[...live.dataFiles()].length, [...live.deleteFiles()].length];
  return { [`files${suffix}`]: files, [`deleteFiles${suffix}`]: deleteFiles } as Record<
    `files${Suffix}` | `deleteFiles${Suffix}`,
    number
  >;
}

function bytesOf(files: FileGroup): number {
  return files.reduce((sum, { bytes }) => sum + bytes, 0);
}
