/** Rows in, finished data files on the local disk out. */
import type { ChangeRow, NativeChange } from './change-row.ts';
import type { StoredColumn } from './fields.ts';
import type { Partition } from './partition.ts';

export interface DataFile extends Partition {
  localPath: string;
  rows: number;
  bytes: number;
  /** Bytes of its longest line, where it has lines. */
  longestLine?: number;
}

export interface FileEncoder {
  write(rows: readonly ChangeRow[]): Promise<void>;
  /** As `write`, also of rows in the form they travel in; absent: this encoder takes none. */
  writeNative?(rows: readonly (ChangeRow | NativeChange)[]): Promise<void>;
  /** All files; each is below `maxFileBytes` of text, so that a single PUT carries it. */
  finish(): Promise<DataFile[]>;
  /** Frees what the encoder holds, also halfway; its folder is the caller's to remove. */
  close(): Promise<void>;
}

export interface FileEncoderSettings {
  columns: readonly StoredColumn[];
  /** Indexes into columns, in key order. */
  keyColumns: readonly number[];
  /** An empty folder of this encoder's own. */
  folder: string;
}

/** Text that goes into one file, in characters: compressed it stays far below the limit of a single PUT. */
export const maxFileBytes = 128 * 1024 * 1024;
