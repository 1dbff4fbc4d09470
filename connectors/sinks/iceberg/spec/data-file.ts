/** A file of a table, as a manifest tells of it (Iceberg specification, "Data File Fields"). */
import { malformed } from '../failures.ts';
import type { BoundPartitionField, PartitionTuple } from './partition-spec.ts';
import { unscaledFromBytes, unscaledToBytes, uuidFromBytes, valueToBytes } from './single-value.ts';
import { decimalBytes, decimalParts, type PrimitiveType, typeKind, type Value } from './types.ts';

export const fileContent = { data: 0, positionDeletes: 1, equalityDeletes: 2 } as const;
export type FileContent = (typeof fileContent)[keyof typeof fileContent];

/** By field id. */
export type ColumnCounts = ReadonlyMap<number, number>;
export type ColumnBounds = ReadonlyMap<number, Uint8Array>;

export interface DataFile {
  content: FileContent;
  file_path: string;
  /** `PARQUET`, `AVRO` or `ORC`. */
  file_format: string;
  /** In the order of the manifest's partition spec. */
  partition: PartitionTuple;
  record_count: number;
  file_size_in_bytes: number;
  column_sizes: ColumnCounts | null;
  value_counts: ColumnCounts | null;
  null_value_counts: ColumnCounts | null;
  nan_value_counts: ColumnCounts | null;
  lower_bounds: ColumnBounds | null;
  upper_bounds: ColumnBounds | null;
  key_metadata: Uint8Array | null;
  split_offsets: readonly number[] | null;
  equality_ids: readonly number[] | null;
  sort_order_id: number | null;
  referenced_data_file: string | null;
}

interface MapEntry<T> {
  key: number;
  value: T;
}

const countMaps = ['column_sizes', 'value_counts', 'null_value_counts', 'nan_value_counts'] as const;
const boundMaps = ['lower_bounds', 'upper_bounds'] as const;

export type AvroDataFile = Record<string, unknown>;

/** @param names of the partition fields within the record, in their order */
export function dataFileToAvro(
  file: DataFile,
  fields: readonly BoundPartitionField[],
  names: readonly string[],
): AvroDataFile {
  const partition = fields.map(({ resultType }, index) => [
    names[index]!,
    valueToAvro(resultType, file.partition[index] ?? null),
  ]);
  const record: AvroDataFile = { ...file, partition: Object.fromEntries(partition) };
  for (const name of [...countMaps, ...boundMaps]) {
    const map: ReadonlyMap<number, unknown> | null = file[name];
    record[name] = map && [...map].map(([key, value]) => ({ key, value: asBuffer(value) }));
  }
  record.key_metadata = asBuffer(file.key_metadata);
  return record;
}

function asBuffer(value: unknown): unknown {
  return value instanceof Uint8Array ? Buffer.from(value.buffer, value.byteOffset, value.byteLength) : value;
}

export function dataFileFromAvro(
  record: AvroDataFile,
  fields: readonly BoundPartitionField[],
  names: readonly string[],
): DataFile {
  const values = record.partition as Record<string, unknown>;
  const file: Record<string, unknown> = {
    // Version 1 has data files only.
    content: record.content ?? fileContent.data,
    file_path: record.file_path,
    file_format: (record.file_format as string).toUpperCase(),
    partition: fields.map(({ resultType }, index) => valueFromAvro(resultType, values[names[index]!])),
    record_count: record.record_count,
    file_size_in_bytes: record.file_size_in_bytes,
  };
  for (const name of [...countMaps, ...boundMaps]) {
    const entries = record[name] as MapEntry<unknown>[] | null | undefined;
    file[name] = entries ? new Map(entries.map(({ key, value }) => [key, value])) : null;
  }
  for (const name of [
    'key_metadata',
    'split_offsets',
    'equality_ids',
    'sort_order_id',
    'referenced_data_file',
  ]) {
    file[name] = record[name] ?? null;
  }
  return file as unknown as DataFile;
}

function valueToAvro(type: PrimitiveType, value: Value | null): unknown {
  if (value === null) return null;
  const decimal = decimalParts(type);
  if (decimal) return unscaledToBytes(value as bigint, decimalBytes(decimal.precision));
  const kind = typeKind(type);
  return kind === 'uuid' || kind === 'fixed' || kind === 'binary' ? valueToBytes(type, value) : value;
}

/** Also of a type that has been promoted since. @throws TidemarkError TM405 */
function valueFromAvro(type: PrimitiveType, raw: unknown): Value | null {
  if (raw === null || raw === undefined) return null;
  if (raw instanceof Uint8Array) {
    const kind = typeKind(type);
    if (kind === 'decimal') return unscaledFromBytes(raw);
    return kind === 'uuid' ? uuidFromBytes(raw) : raw;
  }
  if (type === 'long' && typeof raw === 'number') return BigInt(raw);
  if (['boolean', 'number', 'bigint', 'string'].includes(typeof raw)) return raw as Value;
  throw malformed(`a partition value is no ${type}`);
}
