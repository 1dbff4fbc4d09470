/** What a commit does to a table, independent of the snapshot that it will be based on. */
import type { DataFile } from '../spec/data-file.ts';
import type { SnapshotOperation } from '../spec/snapshot.ts';

export interface AddedFile {
  file: DataFile;
  specId: number;
  /**
   * Data sequence number of rows that are older than the commit: a compaction's, so that deletes since its base still
   * hold for them. Unset: the commit's.
   */
  sequence?: number;
}

export interface AddedDeletes extends AddedFile {
  /** Paths of the data files that rows are deleted from. */
  targets: readonly string[];
}

export interface TableChange {
  added: readonly AddedFile[];
  deletes: readonly AddedDeletes[];
  /** Paths of data files that go, with the deletes that concern only them. */
  removed: readonly string[];
  /** Paths of delete files that go although data files stay which they might concern: they name none of these. */
  removedDeletes?: readonly string[];
  /** The table's rows are the same before and after: a compaction. */
  keepsRows?: boolean;
}

export function operationOf({ added, deletes, removed, keepsRows }: TableChange): SnapshotOperation {
  if (keepsRows) return 'replace';
  if (deletes.length === 0 && removed.length === 0) return 'append';
  return added.length > 0 ? 'overwrite' : 'delete';
}
