/** Table metadata (Iceberg specification, "Table Metadata", Appendix C); read-table-metadata.ts reads it. */

import { type Json, printJson } from '../catalog/exact-json.ts';
import { malformed } from '../failures.ts';
import type { PartitionSpec } from './partition-spec.ts';
import type { Schema } from './schema.ts';
import type { Snapshot, SnapshotReference } from './snapshot.ts';
import type { SortOrder } from './sort-order.ts';

/** In the shape of version 2, whichever was read. */
export interface TableMetadata {
  'format-version': 1 | 2;
  'table-uuid': string;
  location: string;
  'last-sequence-number': number;
  'last-updated-ms': number;
  'last-column-id': number;
  schemas: Schema[];
  'current-schema-id': number;
  'partition-specs': PartitionSpec[];
  'default-spec-id': number;
  'last-partition-id': number;
  'sort-orders': SortOrder[];
  'default-sort-order-id': number;
  properties: Record<string, string>;
  'current-snapshot-id': bigint | null;
  snapshots: Snapshot[];
  'snapshot-log': SnapshotLogEntry[];
  'metadata-log': MetadataLogEntry[];
  refs: Record<string, SnapshotReference>;
  /** Of Puffin files, for others to use. */
  statistics: Json[];
  'partition-statistics': Json[];
}

export interface SnapshotLogEntry {
  'snapshot-id': bigint;
  'timestamp-ms': number;
}

export interface MetadataLogEntry {
  'metadata-file': string;
  'timestamp-ms': number;
}

export function formatTableMetadata(metadata: TableMetadata): string {
  const { 'current-snapshot-id': current, ...rest } = metadata;
  return printJson({ ...rest, ...(current === null ? {} : { 'current-snapshot-id': current }) });
}

/** @throws TidemarkError TM405 */
export function currentSchema(metadata: TableMetadata, what = 'table metadata'): Schema {
  const id = metadata['current-schema-id'];
  const schema = metadata.schemas.find((each) => each['schema-id'] === id);
  if (!schema) throw malformed(`${what}: the current schema is not listed`);
  return schema;
}

/** @throws TidemarkError TM405 */
export function defaultSpec(metadata: TableMetadata, what = 'table metadata'): PartitionSpec {
  return specById(metadata, metadata['default-spec-id'], what);
}

/** @throws TidemarkError TM405 */
export function specById(metadata: TableMetadata, id: number, what = 'table metadata'): PartitionSpec {
  const spec = metadata['partition-specs'].find((each) => each['spec-id'] === id);
  if (!spec) throw malformed(`${what}: partition spec ${id} is not listed`);
  return spec;
}

export function snapshotById(metadata: TableMetadata, id: bigint): Snapshot | undefined {
  return metadata.snapshots.find((each) => each['snapshot-id'] === id);
}

export function currentSnapshot(metadata: TableMetadata): Snapshot | null {
  const id = metadata['current-snapshot-id'];
  return id === null ? null : (snapshotById(metadata, id) ?? null);
}
