/** Fields of the records in manifests and manifest lists, format version 2 (Iceberg specification, "Manifests"). */
import type { NestedField, Type } from './schema.ts';

function field(id: number, name: string, type: Type, required: boolean): NestedField {
  return { id, name, required, type };
}

function required(id: number, name: string, type: Type): NestedField {
  return field(id, name, type, true);
}

function optional(id: number, name: string, type: Type): NestedField {
  return field(id, name, type, false);
}

function columnMap(keyId: number, valueId: number, value: Type): Type {
  return { type: 'map', 'key-id': keyId, key: 'int', 'value-id': valueId, 'value-required': true, value };
}

function listOf(elementId: number, element: Type): Type {
  return { type: 'list', 'element-id': elementId, 'element-required': true, element };
}

export const partitionFieldId = 102;

/** @param partition fields of the partition tuple */
export function manifestEntryFields(partition: readonly NestedField[]): NestedField[] {
  return [
    required(0, 'status', 'int'),
    optional(1, 'snapshot_id', 'long'),
    optional(3, 'sequence_number', 'long'),
    optional(4, 'file_sequence_number', 'long'),
    required(2, 'data_file', { type: 'struct', fields: dataFileFields(partition) }),
  ];
}

function dataFileFields(partition: readonly NestedField[]): NestedField[] {
  return [
    required(134, 'content', 'int'),
    required(100, 'file_path', 'string'),
    required(101, 'file_format', 'string'),
    required(partitionFieldId, 'partition', { type: 'struct', fields: [...partition] }),
    required(103, 'record_count', 'long'),
    required(104, 'file_size_in_bytes', 'long'),
    optional(108, 'column_sizes', columnMap(117, 118, 'long')),
    optional(109, 'value_counts', columnMap(119, 120, 'long')),
    optional(110, 'null_value_counts', columnMap(121, 122, 'long')),
    optional(137, 'nan_value_counts', columnMap(138, 139, 'long')),
    optional(125, 'lower_bounds', columnMap(126, 127, 'binary')),
    optional(128, 'upper_bounds', columnMap(129, 130, 'binary')),
    optional(131, 'key_metadata', 'binary'),
    optional(132, 'split_offsets', listOf(133, 'long')),
    optional(135, 'equality_ids', listOf(136, 'int')),
    optional(140, 'sort_order_id', 'int'),
    optional(143, 'referenced_data_file', 'string'),
  ];
}

export const manifestFileFields: readonly NestedField[] = [
  required(500, 'manifest_path', 'string'),
  required(501, 'manifest_length', 'long'),
  required(502, 'partition_spec_id', 'int'),
  required(517, 'content', 'int'),
  required(515, 'sequence_number', 'long'),
  required(516, 'min_sequence_number', 'long'),
  required(503, 'added_snapshot_id', 'long'),
  required(504, 'added_files_count', 'int'),
  required(505, 'existing_files_count', 'int'),
  required(506, 'deleted_files_count', 'int'),
  required(512, 'added_rows_count', 'long'),
  required(513, 'existing_rows_count', 'long'),
  required(514, 'deleted_rows_count', 'long'),
  optional(
    507,
    'partitions',
    listOf(508, {
      type: 'struct',
      fields: [
        required(509, 'contains_null', 'boolean'),
        optional(518, 'contains_nan', 'boolean'),
        optional(510, 'lower_bound', 'binary'),
        optional(511, 'upper_bound', 'binary'),
      ],
    }),
  ),
  optional(519, 'key_metadata', 'binary'),
];

const snapshotIds: ReadonlySet<number> = new Set([1, 503]);

/** Snapshot ids fill 63 bits; counts, sizes and sequence numbers do not. */
export function isSnapshotId(fieldId: number): boolean {
  return snapshotIds.has(fieldId);
}
