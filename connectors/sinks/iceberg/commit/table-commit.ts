/** A table's part of a Window, ready to be committed to whatever state the table is in by then. */
import type { TableCommit } from '../catalog/catalog.ts';
import { CommitConflict } from '../catalog/failures.ts';
import type { FileStore } from '../file-store.ts';
import type { OpenTable } from '../lake.ts';
import type { LiveChange, LiveFiles } from '../plan/live-files.ts';
import { applyUpdates } from '../spec/apply-updates.ts';
import type { TableMetadata } from '../spec/table-metadata.ts';
import type { TableRequirement, TableUpdate } from '../spec/updates.ts';
import type { PreparedCommit } from './prepare-commit.ts';
import { rebaseCommit } from './rebase-commit.ts';

export interface PreparedTable {
  table: OpenTable;
  live: LiveFiles;
  prepared: PreparedCommit;
  /** Of the schema. */
  definition: readonly TableUpdate[];
  properties: Readonly<Record<string, string>>;
  summary: Readonly<Record<string, string>>;
  /** The commit on the snapshot that `live` has gone to; null where it takes a merge from the beginning. */
  replan?: (now: OpenTable, change: LiveChange) => Promise<PreparedCommit | null>;
  /** More, behind the snapshot. */
  further?: (metadata: TableMetadata) => TableUpdate[];
}

/** The rows that the merge was made of are not those of the table any more: it has to be made again. */
export class StaleMerge extends CommitConflict {}

export interface Attempted {
  commit: TableCommit;
  written: string[];
}

/** @throws StaleMerge */
export async function commitOf(
  store: Pick<FileStore, 'get' | 'put'>,
  { table, live, prepared, definition, properties, summary, further }: PreparedTable,
): Promise<Attempted> {
  const nowMs = Date.now();
  const metadata = applyUpdates(table.metadata, definition, nowMs);
  const attempt = await rebaseCommit(store, prepared, metadata, live, { nowMs, summary });
  if ('vanished' in attempt) throw new StaleMerge(table.identifier.name);
  const requirements: TableRequirement[] = [...attempt.requirements];
  if (definition.length > 0) {
    requirements.push(
      { type: 'assert-current-schema-id', 'current-schema-id': table.metadata['current-schema-id'] },
      { type: 'assert-last-assigned-field-id', 'last-assigned-field-id': table.metadata['last-column-id'] },
      { type: 'assert-default-spec-id', 'default-spec-id': table.metadata['default-spec-id'] },
      {
        type: 'assert-last-assigned-partition-id',
        'last-assigned-partition-id': table.metadata['last-partition-id'],
      },
      {
        type: 'assert-default-sort-order-id',
        'default-sort-order-id': table.metadata['default-sort-order-id'],
      },
    );
  }
  const updates: TableUpdate[] = [
    ...definition,
    ...attempt.updates,
    ...(further?.(table.metadata) ?? []),
    { action: 'set-properties', updates: { ...properties } },
  ];
  const commit = { identifier: table.identifier, requirements, updates } as unknown as TableCommit;
  return { commit, written: attempt.written };
}

/**
 * The same on the table as it is now: on top of what others appended, deleted and compacted meanwhile.
 * @throws StaleMerge where it takes a merge from the beginning
 */
export async function rebaseTable(prepared: PreparedTable, now: OpenTable): Promise<PreparedTable> {
  const { table, live } = prepared;
  const before = table.metadata;
  const redefined =
    before['table-uuid'] !== now.metadata['table-uuid'] ||
    before['current-schema-id'] !== now.metadata['current-schema-id'] ||
    before['default-spec-id'] !== now.metadata['default-spec-id'];
  if (redefined) throw new StaleMerge(table.identifier.name);
  const change = await live.advance(now.metadata);
  if (change.added.length + change.removed.length === 0) return { ...prepared, table: now };
  const replanned = await prepared.replan?.(now, change);
  if (!replanned) throw new StaleMerge(table.identifier.name);
  return { ...prepared, table: now, prepared: replanned };
}
