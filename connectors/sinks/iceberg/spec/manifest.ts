/** Manifests (Iceberg specification, "Manifests", "Sequence Number Inheritance"): versions 1 and 2 read, 2 written. */

import { printJson } from '../catalog/exact-json.ts';
import { malformed } from '../failures.ts';
import { readAvroFile, writeAvroFile } from './avro-file.ts';
import { avroNames, avroRecord, readableSchema } from './avro-schema.ts';
import { type AvroDataFile, type DataFile, dataFileFromAvro, dataFileToAvro } from './data-file.ts';
import { isSnapshotId, manifestEntryFields, partitionFieldId } from './manifest-fields.ts';
import { type ManifestContent, type ManifestFile, manifestContent } from './manifest-list.ts';
import type { BoundPartitionField, PartitionSpec } from './partition-spec.ts';
import { type NestedField, type Schema, visitFields } from './schema.ts';

export const entryStatus = { existing: 0, added: 1, deleted: 2 } as const;
export type EntryStatus = (typeof entryStatus)[keyof typeof entryStatus];

/** As it is read: what it inherits is filled in. */
export interface ManifestEntry {
  status: EntryStatus;
  /** Of the snapshot that added the file, or that deleted it. */
  snapshot_id: bigint;
  /** The age of the file's rows, which decides about deletes. */
  sequence_number: number;
  /** Of the snapshot that added the file. */
  file_sequence_number: number;
  data_file: DataFile;
}

/** As it is written: null is inherited from the commit, so that a manifest outlives its retries. */
export interface UnassignedEntry {
  status: EntryStatus;
  snapshot_id: bigint | null;
  sequence_number: number | null;
  file_sequence_number: number | null;
  data_file: DataFile;
}

/** What a manifest says of itself, besides its entries. */
export interface ManifestTable {
  schema: Schema;
  spec: PartitionSpec;
  fields: readonly BoundPartitionField[];
}

export function writeManifest(
  { schema, spec, fields }: ManifestTable,
  content: ManifestContent,
  entries: readonly UnassignedEntry[],
): Buffer {
  const partition = partitionStruct(fields);
  const ids = new Set(partition.map(({ id }) => id));
  const names = avroNames(partition);
  return writeAvroFile(
    avroRecord('manifest_entry', manifestEntryFields(partition), (id) => isSnapshotId(id) || ids.has(id)),
    {
      schema: printJson(schema),
      'schema-id': String(schema['schema-id']),
      'partition-spec': printJson(spec.fields),
      'partition-spec-id': String(spec['spec-id']),
      'format-version': '2',
      content: content === manifestContent.deletes ? 'deletes' : 'data',
    },
    entries.map((entry) => ({ ...entry, data_file: dataFileToAvro(entry.data_file, fields, names) })),
  );
}

function partitionStruct(fields: readonly BoundPartitionField[]): NestedField[] {
  return fields.map(({ id, name, resultType }) => ({ id, name, required: false, type: resultType }));
}

const ownNames = new Map<number, string>();
visitFields({ type: 'struct', fields: manifestEntryFields([]) }, ({ id, name }) => ownNames.set(id, name));

/** Field names do not matter within the partition tuple, and some that tables have are none in Avro. */
function nameInTuple(id: number): string {
  return `p${id}`;
}

const tupleNames = new Map([[partitionFieldId, { names: nameInTuple, exact: () => true }]]);

/**
 * @param listed the manifest's line in the manifest list, which entries inherit from
 * @param fields of its partition spec
 * @throws TidemarkError TM405
 */
export function readManifest(
  bytes: Buffer,
  listed: ManifestFile,
  fields: readonly BoundPartitionField[],
): ManifestEntry[] {
  const what = `manifest ${listed.manifest_path}`;
  const names = fields.map(({ id }) => nameInTuple(id));
  const { records, metadata } = readAvroFile(bytes, what, (schema) =>
    readableSchema(schema, (id) => ownNames.get(id), isSnapshotId, tupleNames),
  );
  const ofVersion1 = (metadata.get('format-version') ?? '1') === '1';
  return (records as AvroEntry[]).map((record) => {
    const { status } = record;
    if (status !== 0 && status !== 1 && status !== 2)
      throw malformed(`${what} has an entry of status ${status}`);
    const age = (own: number | null | undefined): number => {
      if (own !== null && own !== undefined) return own;
      if (status === entryStatus.added) return listed.sequence_number;
      if (ofVersion1) return 0;
      throw malformed(`${what} has an entry without its sequence number`);
    };
    return {
      status,
      snapshot_id: record.snapshot_id ?? listed.added_snapshot_id,
      sequence_number: age(record.sequence_number),
      file_sequence_number: age(record.file_sequence_number),
      data_file: dataFileFromAvro(record.data_file, fields, names),
    };
  });
}

interface AvroEntry {
  status: number;
  snapshot_id: bigint | null;
  sequence_number?: number | null;
  file_sequence_number?: number | null;
  data_file: AvroDataFile;
}
