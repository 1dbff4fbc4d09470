/** What a kind of data file is to the log: how rows become files, and how DuckDB reads them again. */
import type { RowChoices } from './change-row.ts';
import type { FileEncoder, FileEncoderSettings } from './data-file.ts';
import type { Held, StoredColumn } from './fields.ts';
import type { StorageOf } from './storage.ts';

export interface LogFormat extends Omit<RowChoices, 'dates'> {
  /** Of failpoints: `parquet`. */
  name: string;
  /** What manifests call the writer: files of one writer can be merged with each other. */
  encoder: string;
  /** Of data files, without the leading dot. */
  extension: string;
  contentType: string;
  storageOf: StorageOf;
  open(settings: FileEncoderSettings): Promise<FileEncoder>;
  /** SQL of a relation with the metadata columns and a column for every field that the files hold. */
  relation(files: ReadFiles): string;
  /** Whether readers can go through that relation again and again; else it is copied to Parquet first. */
  direct: boolean;
  /** Makes one file of several; null where this writer cannot. */
  merge: ((files: MergeFiles) => Promise<void>) | null;
}

export interface ReadFiles {
  /** SQL of a list of paths. */
  paths: string;
  columns: readonly StoredColumn[];
  /** Every field of these columns, earlier ones too. */
  held: readonly Held[];
  /** Whether all files have the same columns and types (Manifest.uniform). */
  uniform: boolean;
  /** SQL of a number: bytes of the longest line. */
  longestLine: string;
}

export interface MergeFiles {
  /** Local paths, in the order of their Windows. */
  sources: readonly string[];
  target: string;
  /** An empty folder of this merge's own. */
  folder: string;
  /** Rows of all sources: what the target must have. */
  rows: number;
}
