/** Where a table's new files go (Iceberg specification, "Path Construction"). */
import { randomUUID } from 'node:crypto';
import type { TableMetadata } from '../spec/table-metadata.ts';

/** Without a slash at the end. */
export function dataLocation(metadata: TableMetadata): string {
  return folder(metadata, 'write.data.path', 'data');
}

/** Without a slash at the end. */
export function metadataLocation(metadata: TableMetadata): string {
  return folder(metadata, 'write.metadata.path', 'metadata');
}

function folder({ location, properties }: TableMetadata, property: string, standard: string): string {
  const path = (properties[property] ?? standard).replace(/\/+$/, '');
  return /^[a-z][a-z0-9+.-]*:/i.test(path) ? path : `${location.replace(/\/+$/, '')}/${path}`;
}

export function newManifestLocation(metadata: TableMetadata): string {
  return `${metadataLocation(metadata)}/${randomUUID()}-m0.avro`;
}

/** Of each attempt its own: attempts differ in what they list. */
export function newManifestListLocation(metadata: TableMetadata, snapshotId: bigint): string {
  return `${metadataLocation(metadata)}/snap-${snapshotId}-1-${randomUUID()}.avro`;
}
