/** Requirements and updates of a commit as the REST catalog takes them (its OpenAPI: TableRequirement, TableUpdate). */
import type { PartitionSpec } from './partition-spec.ts';
import type { Schema } from './schema.ts';
import type { Snapshot, SnapshotReference } from './snapshot.ts';
import type { SortOrder } from './sort-order.ts';
import type { TableMetadata } from './table-metadata.ts';

export type TableRequirement =
  | { type: 'assert-create' }
  | { type: 'assert-table-uuid'; uuid: string }
  /** Null: there must be no such reference. */
  | { type: 'assert-ref-snapshot-id'; ref: string; 'snapshot-id': bigint | null }
  | { type: 'assert-last-assigned-field-id'; 'last-assigned-field-id': number }
  | { type: 'assert-current-schema-id'; 'current-schema-id': number }
  | { type: 'assert-last-assigned-partition-id'; 'last-assigned-partition-id': number }
  | { type: 'assert-default-spec-id'; 'default-spec-id': number }
  | { type: 'assert-default-sort-order-id'; 'default-sort-order-id': number };

/** An id of -1 names what the same commit added last. */
export type TableUpdate =
  | { action: 'assign-uuid'; uuid: string }
  | { action: 'upgrade-format-version'; 'format-version': number }
  | { action: 'add-schema'; schema: Schema; 'last-column-id'?: number }
  | { action: 'set-current-schema'; 'schema-id': number }
  | { action: 'add-spec'; spec: PartitionSpec }
  | { action: 'set-default-spec'; 'spec-id': number }
  | { action: 'add-sort-order'; 'sort-order': SortOrder }
  | { action: 'set-default-sort-order'; 'sort-order-id': number }
  | { action: 'add-snapshot'; snapshot: Snapshot }
  | ({ action: 'set-snapshot-ref'; 'ref-name': string } & SnapshotReference)
  | { action: 'remove-snapshots'; 'snapshot-ids': bigint[] }
  | { action: 'remove-snapshot-ref'; 'ref-name': string }
  | { action: 'set-location'; location: string }
  | { action: 'set-properties'; updates: Record<string, string> }
  | { action: 'remove-properties'; removals: string[] }
  | { action: 'remove-partition-specs'; 'spec-ids': number[] }
  | { action: 'remove-schemas'; 'schema-ids': number[] };

/** The first requirement that a table does not meet. @param metadata null where there is no table */
export function unmetRequirement(
  metadata: TableMetadata | null,
  requirements: readonly TableRequirement[],
): TableRequirement | null {
  return requirements.find((each) => !meets(metadata, each)) ?? null;
}

function meets(metadata: TableMetadata | null, requirement: TableRequirement): boolean {
  if (requirement.type === 'assert-create') return metadata === null;
  if (metadata === null) return false;
  switch (requirement.type) {
    case 'assert-table-uuid':
      return metadata['table-uuid'].toLowerCase() === requirement.uuid.toLowerCase();
    case 'assert-ref-snapshot-id': {
      const { refs } = metadata;
      const id = Object.hasOwn(refs, requirement.ref) ? refs[requirement.ref]!['snapshot-id'] : null;
      return id === requirement['snapshot-id'];
    }
    case 'assert-last-assigned-field-id':
      return metadata['last-column-id'] === requirement['last-assigned-field-id'];
    case 'assert-current-schema-id':
      return metadata['current-schema-id'] === requirement['current-schema-id'];
    case 'assert-last-assigned-partition-id':
      return metadata['last-partition-id'] === requirement['last-assigned-partition-id'];
    case 'assert-default-spec-id':
      return metadata['default-spec-id'] === requirement['default-spec-id'];
    default:
      return metadata['default-sort-order-id'] === requirement['default-sort-order-id'];
  }
}
