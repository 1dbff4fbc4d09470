/** Rows in, finished Parquet files on the local disk out. */
import type { ChangeRow } from './change-row.ts';
import type { StoredColumn } from './columns.ts';
import type { Compression } from './options.ts';

export interface EncodedFile {
  localPath: string;
  rows: number;
  bytes: number;
  tenant: string | null | undefined;
  /** YYYY-MM-DD */
  date: string;
}

export interface Encoder {
  write(rows: readonly ChangeRow[]): Promise<void>;
  /** All files; each is below `maxFileBytes` of text, so that a single PUT carries it. */
  finish(): Promise<EncodedFile[]>;
  /** Frees what the encoder holds; its folder is the caller's to remove. */
  close(): Promise<void>;
}

export interface EncoderSettings {
  columns: readonly StoredColumn[];
  /** An empty folder of this encoder's own. */
  folder: string;
  compression: Compression;
  memoryBytes: number;
  rowGroupRows: number;
}

/** Text that goes into one file, in characters: compressed it stays far below the limit of a single PUT. */
export const maxFileBytes = 128 * 1024 * 1024;

/** Identity of a partition: rows with the same one share files. */
export function partitionOf({ tenant, date }: ChangeRow): string {
  return tenant === undefined ? `${date}-` : tenant === null ? `${date}0` : `${date}=${tenant}`;
}
