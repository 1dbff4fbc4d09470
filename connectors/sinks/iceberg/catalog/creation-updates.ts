/** A new table as the updates that make it: what commits a staged table, or makes one where the client writes metadata. */
import { randomUUID } from 'node:crypto';
import type { TableCommit, TableCreation, TableUpdate } from './catalog.ts';

export interface CreationIdentity {
  formatVersion: number;
  /** Unset: a new one. Of a staged table, the one that it was given. */
  uuid?: string;
  location: string;
}

/** With `assert-create`: it is refused where the table is there. -1 stands for the schema, spec and order just added. */
export function creationCommit(creation: TableCreation, identity: CreationIdentity): TableCommit {
  const { identifier, schema, partitionSpec, sortOrder, properties } = creation;
  const updates: TableUpdate[] = [
    { action: 'assign-uuid', uuid: identity.uuid ?? randomUUID() },
    { action: 'upgrade-format-version', 'format-version': identity.formatVersion },
    { action: 'add-schema', schema },
    { action: 'set-current-schema', 'schema-id': -1 },
    { action: 'add-spec', spec: partitionSpec ?? { 'spec-id': 0, fields: [] } },
    { action: 'set-default-spec', 'spec-id': -1 },
    { action: 'add-sort-order', 'sort-order': sortOrder ?? { 'order-id': 0, fields: [] } },
    { action: 'set-default-sort-order', 'sort-order-id': -1 },
    { action: 'set-location', location: identity.location },
  ];
  if (properties !== undefined && Object.keys(properties).length > 0) {
    updates.push({ action: 'set-properties', updates: properties });
  }
  return { identifier, requirements: [{ type: 'assert-create' }], updates };
}
