/** A table's manifests as format-witness.py tells of them (read_table), read by the sink. */
import type { FileStore } from '../../connectors/sinks/iceberg/file-store.ts';
import { boundSpec, entriesOf, manifestsOf } from '../../connectors/sinks/iceberg/plan/table-reader.ts';
import type { DataFile } from '../../connectors/sinks/iceberg/spec/data-file.ts';
import type { BoundPartitionField } from '../../connectors/sinks/iceberg/spec/partition-spec.ts';
import { currentSnapshot, type TableMetadata } from '../../connectors/sinks/iceberg/spec/table-metadata.ts';
import { valueText } from './values.ts';

export interface FileAnswer {
  path: string;
  content: number;
  format: string;
  partition: (string | null)[];
  records: number;
  size: number;
  column_sizes: Record<string, number>;
  value_counts: Record<string, number>;
  null_value_counts: Record<string, number>;
  nan_value_counts: Record<string, number>;
  lower_bounds: Record<string, string>;
  upper_bounds: Record<string, string>;
  split_offsets: number[];
  sort_order_id: number | null;
}

export interface ManifestAnswer {
  path: string;
  length: number;
  content: number;
  spec: number;
  sequence: number;
  min_sequence: number;
  snapshot: string;
  counts: (number | null)[];
  partitions: {
    contains_null: boolean;
    contains_nan: boolean | null;
    lower: string | null;
    upper: string | null;
  }[];
  entries: (FileAnswer & { status: number; snapshot: string; sequence: number; file_sequence: number })[];
}

export interface TableAnswer {
  schema: unknown;
  summary: Record<string, string> | null;
  rows: Record<string, unknown>[];
  files: (FileAnswer & { deletes: string[] })[];
  manifests: ManifestAnswer[];
}

export async function dumpManifests(
  store: Pick<FileStore, 'get'>,
  metadata: TableMetadata,
): Promise<ManifestAnswer[]> {
  const answers: ManifestAnswer[] = [];
  for (const manifest of await manifestsOf(store, currentSnapshot(metadata))) {
    const fields = boundSpec(metadata, manifest.partition_spec_id);
    answers.push({
      path: manifest.manifest_path,
      length: manifest.manifest_length,
      content: manifest.content,
      spec: manifest.partition_spec_id,
      sequence: manifest.sequence_number,
      min_sequence: manifest.min_sequence_number,
      snapshot: String(manifest.added_snapshot_id),
      counts: [
        manifest.added_files_count,
        manifest.existing_files_count,
        manifest.deleted_files_count,
        manifest.added_rows_count,
        manifest.existing_rows_count,
        manifest.deleted_rows_count,
      ],
      partitions: (manifest.partitions ?? []).map((each) => ({
        contains_null: each.contains_null,
        contains_nan: each.contains_nan,
        lower: hex(each.lower_bound),
        upper: hex(each.upper_bound),
      })),
      entries: (await entriesOf(store, metadata, manifest)).map((entry) => ({
        status: entry.status,
        snapshot: String(entry.snapshot_id),
        sequence: entry.sequence_number,
        file_sequence: entry.file_sequence_number,
        ...dumpFile(entry.data_file, fields),
      })),
    });
  }
  return answers;
}

export function dumpFile(file: DataFile, fields: readonly BoundPartitionField[]): FileAnswer {
  return {
    path: file.file_path,
    content: file.content,
    format: file.file_format,
    partition: fields.map(({ resultType }, index) => valueText(resultType, file.partition[index]!)),
    records: file.record_count,
    size: file.file_size_in_bytes,
    column_sizes: object(file.column_sizes),
    value_counts: object(file.value_counts),
    null_value_counts: object(file.null_value_counts),
    nan_value_counts: object(file.nan_value_counts),
    lower_bounds: object(file.lower_bounds, hex),
    upper_bounds: object(file.upper_bounds, hex),
    split_offsets: [...(file.split_offsets ?? [])],
    sort_order_id: file.sort_order_id,
  };
}

function object<T, U = T>(
  map: ReadonlyMap<number, T> | null,
  show: (value: T) => U = (value) => value as never,
) {
  return Object.fromEntries([...(map ?? [])].map(([key, value]) => [String(key), show(value)])) as Record<
    string,
    NonNullable<U>
  >;
}

function hex(bytes: Uint8Array | null): string | null {
  return bytes && Buffer.from(bytes).toString('hex');
}
