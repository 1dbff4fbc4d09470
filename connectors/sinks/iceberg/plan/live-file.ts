/** A live file of a snapshot, with what planning needs of it: tables have many, so nothing else is kept. */
import type { ColumnBounds, FileContent } from '../spec/data-file.ts';
import { fileContent } from '../spec/data-file.ts';
import type { ManifestEntry } from '../spec/manifest.ts';
import { type PartitionTuple, partitionKey } from '../spec/partition-spec.ts';

const deletePathId = 2147483546;

export interface LiveFile {
  path: string;
  content: FileContent;
  format: string;
  specId: number;
  partition: PartitionTuple;
  /** The same for files of the same partition. */
  partitionKey: string;
  /** Data sequence number. */
  sequence: number;
  records: number;
  bytes: number;
  lower: ColumnBounds;
  upper: ColumnBounds;
  /** Of position deletes: the only data file that they concern, where that is known. */
  referenced: string | null;
  equalityIds: readonly number[] | null;
  /** Path of the manifest that lists it. */
  manifest: string;
}

/** @param kept ids of the columns whose bounds are of use */
export function liveFile(
  { data_file: file, sequence_number: sequence }: ManifestEntry,
  specId: number,
  manifest: string,
  kept: ReadonlySet<number>,
): LiveFile {
  const lower = only(file.lower_bounds, kept);
  const upper = only(file.upper_bounds, kept);
  return {
    path: file.file_path,
    content: file.content,
    format: file.file_format,
    specId,
    partition: file.partition,
    partitionKey: partitionKey(specId, file.partition),
    sequence,
    records: file.record_count,
    bytes: file.file_size_in_bytes,
    lower,
    upper,
    referenced: file.content === fileContent.positionDeletes ? referencedFile(file) : null,
    equalityIds: file.equality_ids,
    manifest,
  };
}

function only(bounds: ColumnBounds | null, kept: ReadonlySet<number>): ColumnBounds {
  return new Map([...(bounds ?? [])].filter(([id]) => kept.has(id)));
}

/** Writers of before `referenced_data_file` show by equal bounds that all paths are one. */
function referencedFile({
  referenced_data_file: named,
  lower_bounds: lower,
  upper_bounds: upper,
}: ManifestEntry['data_file']): string | null {
  if (named !== null) return named;
  const [first, last] = [lower?.get(deletePathId), upper?.get(deletePathId)];
  if (!first || !last || Buffer.compare(first, last) !== 0) return null;
  return Buffer.from(first).toString('utf8');
}
