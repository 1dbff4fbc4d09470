/** Manifest lists (Iceberg specification, "Manifest Lists"): versions 1 and 2 read, 2 written. */
import { readAvroFile, writeAvroFile } from './avro-file.ts';
import { avroRecord, readableSchema } from './avro-schema.ts';
import { isSnapshotId, manifestFileFields } from './manifest-fields.ts';
import { visitFields } from './schema.ts';
import type { Snapshot } from './snapshot.ts';

export const manifestContent = { data: 0, deletes: 1 } as const;
export type ManifestContent = (typeof manifestContent)[keyof typeof manifestContent];

/** Of the values of one partition field, over all files of a manifest. */
export interface FieldSummary {
  contains_null: boolean;
  contains_nan: boolean | null;
  lower_bound: Uint8Array | null;
  upper_bound: Uint8Array | null;
}

export interface ManifestFile {
  manifest_path: string;
  manifest_length: number;
  partition_spec_id: number;
  content: ManifestContent;
  sequence_number: number;
  /** Smallest data sequence number of the live files. */
  min_sequence_number: number;
  added_snapshot_id: bigint;
  /** Counts are null where a writer of version 1 left them out: there may be some. */
  added_files_count: number | null;
  existing_files_count: number | null;
  deleted_files_count: number | null;
  added_rows_count: number | null;
  existing_rows_count: number | null;
  deleted_rows_count: number | null;
  partitions: readonly FieldSummary[] | null;
  key_metadata: Uint8Array | null;
}

const schema = avroRecord('manifest_file', manifestFileFields, isSnapshotId);

/** @param manifests with all their counts */
export function writeManifestList(
  snapshot: Pick<Snapshot, 'snapshot-id' | 'parent-snapshot-id' | 'sequence-number'>,
  manifests: readonly ManifestFile[],
): Buffer {
  const parent = snapshot['parent-snapshot-id'];
  const metadata = {
    'snapshot-id': String(snapshot['snapshot-id']),
    'parent-snapshot-id': parent === undefined ? 'null' : String(parent),
    'sequence-number': String(snapshot['sequence-number']),
    'format-version': '2',
  };
  return writeAvroFile(schema, metadata, manifests.map(toRecord));
}

function toRecord(manifest: ManifestFile): unknown {
  return {
    ...manifest,
    partitions:
      manifest.partitions?.map((summary) => ({
        ...summary,
        lower_bound: buffer(summary.lower_bound),
        upper_bound: buffer(summary.upper_bound),
      })) ?? null,
    key_metadata: buffer(manifest.key_metadata),
  };
}

function buffer(bytes: Uint8Array | null): Buffer | null {
  return bytes && Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

const ownNames = new Map<number, string>();
visitFields({ type: 'struct', fields: [...manifestFileFields] }, ({ id, name }) => ownNames.set(id, name));

/** @throws TidemarkError TM405 */
export function readManifestList(bytes: Buffer, location: string): ManifestFile[] {
  const { records } = readAvroFile(bytes, `manifest list ${location}`, (written) =>
    readableSchema(written, (id) => ownNames.get(id), isSnapshotId, new Map()),
  );
  return (records as Partial<ManifestFile>[]).map((record) => ({
    manifest_path: record.manifest_path!,
    manifest_length: record.manifest_length!,
    partition_spec_id: record.partition_spec_id!,
    // Version 1 has neither deletes nor sequence numbers.
    content: record.content ?? manifestContent.data,
    sequence_number: record.sequence_number ?? 0,
    min_sequence_number: record.min_sequence_number ?? 0,
    added_snapshot_id: record.added_snapshot_id!,
    added_files_count: record.added_files_count ?? null,
    existing_files_count: record.existing_files_count ?? null,
    deleted_files_count: record.deleted_files_count ?? null,
    added_rows_count: record.added_rows_count ?? null,
    existing_rows_count: record.existing_rows_count ?? null,
    deleted_rows_count: record.deleted_rows_count ?? null,
    partitions:
      record.partitions?.map(({ contains_null, contains_nan, lower_bound, upper_bound }) => ({
        contains_null,
        contains_nan: contains_nan ?? null,
        lower_bound: lower_bound ?? null,
        upper_bound: upper_bound ?? null,
      })) ?? null,
    key_metadata: record.key_metadata ?? null,
  }));
}
