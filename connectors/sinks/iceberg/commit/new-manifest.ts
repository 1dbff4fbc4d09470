/** Writing a manifest, and the line that a manifest list has for it. */
import type { FileStore } from '../file-store.ts';
import { boundSpec } from '../plan/table-reader.ts';
import { type EntryStatus, entryStatus, type UnassignedEntry, writeManifest } from '../spec/manifest.ts';
import type { FieldSummary, ManifestContent, ManifestFile } from '../spec/manifest-list.ts';
import type { BoundPartitionField } from '../spec/partition-spec.ts';
import { compareValues, valueToBytes } from '../spec/single-value.ts';
import { currentSchema, specById, type TableMetadata } from '../spec/table-metadata.ts';
import type { Value } from '../spec/types.ts';
import { newManifestLocation } from './locations.ts';

/** Its sequence number is that of the commit that gets through; null: so is the smallest of its files. */
export interface NewManifest extends Omit<ManifestFile, 'sequence_number' | 'min_sequence_number'> {
  min_sequence_number: number | null;
}

/** Longer ones are split, so that a reader can skip parts. Files with many columns take some kilobytes each. */
const mostEntries = 4000;

export async function putManifests(
  store: Pick<FileStore, 'put'>,
  metadata: TableMetadata,
  snapshotId: bigint,
  specId: number,
  content: ManifestContent,
  entries: readonly UnassignedEntry[],
): Promise<NewManifest[]> {
  const fields = boundSpec(metadata, specId);
  const table = { schema: currentSchema(metadata), spec: specById(metadata, specId), fields };
  const manifests: NewManifest[] = [];
  for (let start = 0; start < entries.length; start += mostEntries) {
    const part = entries.slice(start, start + mostEntries);
    const bytes = writeManifest(table, content, part);
    const location = newManifestLocation(metadata);
    await store.put(location, bytes);
    manifests.push({
      manifest_path: location,
      manifest_length: bytes.length,
      partition_spec_id: specId,
      content,
      added_snapshot_id: snapshotId,
      ...countEntries(part),
      min_sequence_number: smallestSequence(part),
      partitions: fields.map((field, index) => summarize(field, index, part)),
      key_metadata: null,
    });
  }
  return manifests;
}

export function assign(manifest: NewManifest, sequence: number): ManifestFile {
  return {
    ...manifest,
    sequence_number: sequence,
    min_sequence_number: manifest.min_sequence_number ?? sequence,
  };
}

export type EntryCounts = Pick<
  ManifestFile,
  | 'added_files_count'
  | 'existing_files_count'
  | 'deleted_files_count'
  | 'added_rows_count'
  | 'existing_rows_count'
  | 'deleted_rows_count'
>;

export function countEntries(entries: readonly Pick<UnassignedEntry, 'status' | 'data_file'>[]): EntryCounts {
  const of = (status: EntryStatus) => entries.filter((entry) => entry.status === status);
  const rows = (status: EntryStatus) =>
    of(status).reduce((sum, { data_file: file }) => sum + file.record_count, 0);
  return {
    added_files_count: of(entryStatus.added).length,
    existing_files_count: of(entryStatus.existing).length,
    deleted_files_count: of(entryStatus.deleted).length,
    added_rows_count: rows(entryStatus.added),
    existing_rows_count: rows(entryStatus.existing),
    deleted_rows_count: rows(entryStatus.deleted),
  };
}

/** Null where all live files wait for the commit's: it is larger than any that was given before. */
function smallestSequence(entries: readonly UnassignedEntry[]): number | null {
  const given = entries.flatMap(({ status, sequence_number: sequence }) =>
    status === entryStatus.deleted || sequence === null ? [] : [sequence],
  );
  return given.length === 0 ? null : given.reduce((least, each) => Math.min(least, each));
}

function summarize(
  { resultType, transform }: BoundPartitionField,
  index: number,
  entries: readonly UnassignedEntry[],
): FieldSummary {
  const summary: FieldSummary = {
    contains_null: false,
    contains_nan: false,
    lower_bound: null,
    upper_bound: null,
  };
  let lowest: Value | null = null;
  let highest: Value | null = null;
  for (const { data_file: file } of entries) {
    const value = file.partition[index] ?? null;
    if (value === null) summary.contains_null = true;
    else if (Number.isNaN(value)) summary.contains_nan = true;
    else {
      if (lowest === null || compareValues(resultType, value, lowest) < 0) lowest = value;
      if (highest === null || compareValues(resultType, value, highest) > 0) highest = value;
    }
  }
  // Of an unknown transform, not even the type of its values is known.
  if (lowest === null || highest === null || transform.kind === 'unknown') return summary;
  return {
    ...summary,
    lower_bound: valueToBytes(resultType, lowest),
    upper_bound: valueToBytes(resultType, highest),
  };
}
