/**
 * Files of a table by the locations that Iceberg's metadata name them with: `s3://bucket/key` and `file:///path`.
 *
 * A location is taken as it is written. Nothing in it is decoded, as in Iceberg's own libraries: `%20` is three
 * characters, and what HTTP needs encoded is encoded on the way out. Readers differ in what they make of `%`, `#`, `?`
 * and spaces, so names that this side makes go through `keySegment`.
 */
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { S3Access } from './s3-access.ts';

export interface FileEntry {
  location: string;
  size: number;
  /** Milliseconds since 1970 UTC. */
  modifiedMs: number;
}

/** Failures are TidemarkErrors: TM401 where trying again may help, TM402 where a right is missing. */
export interface FileStore {
  /** The whole file, or null where there is none. */
  get(location: string): Promise<Buffer | null>;
  /** `length` bytes from `start`, fewer where the file ends before; null where there is no file. */
  getRange(location: string, start: number, length: number): Promise<Buffer | null>;
  /** What was there is replaced. Durable when it returns. */
  put(location: string, body: Buffer): Promise<void>;
  /** As put, of a finished local file. */
  putFile(location: string, localPath: string): Promise<void>;
  /** What does not exist is ignored. */
  delete(locations: readonly string[]): Promise<void>;
  /**
   * Every file whose location starts with `prefix`, in pages; the prefix of a folder ends with `/`.
   * @param unfinished also what was never finished, where the store has such files
   */
  list(prefix: string, unfinished?: boolean): AsyncIterable<FileEntry[]>;
  close(): Promise<void>;
}

/** The store for a location; the AWS SDK is loaded only where it is needed. @throws TidemarkError TM101, TM102 */
export async function openFileStore(location: string, access: S3Access): Promise<FileStore> {
  const parsed = parseLocation(location);
  if (parsed.kind === 'file') return new (await import('./local-file-store.ts')).LocalFileStore();
  return (await import('./s3-file-store.ts')).S3FileStore.open(access);
}

export type ParsedLocation =
  | { kind: 'file'; path: string }
  /** `scheme` as it was written: `s3`, `s3a`, `s3n`. */
  | { kind: 's3'; scheme: string; bucket: string; key: string };

/** @throws TidemarkError TM101 for a location of another kind, or one that leads out of its folder */
export function parseLocation(location: string): ParsedLocation {
  const file = /^file:(?:\/\/)?(\/(?!\/).*)$/s.exec(location);
  if (file) {
    if (/(?:^|\/)\.\.?(?:\/|$)/.test(file[1]!) || file[1]!.includes('\0')) throw unusable();
    return { kind: 'file', path: file[1]! };
  }
  const s3 = /^(s3[an]?):\/\/([^/]+)\/(.*)$/s.exec(location);
  if (s3) return { kind: 's3', scheme: s3[1]!, bucket: s3[2]!, key: s3[3]! };
  throw unusable();
}

function unusable(): TidemarkError {
  return new TidemarkError('TM101', 'a table is kept where this version cannot write', {
    remedy:
      'Keep tables in s3://bucket/… or file:///directory/…; set the catalog’s warehouse to such a place.',
  });
}

/**
 * A name as one part of a location that every reader takes literally: letters, digits, `_` and `.` stay, of any other
 * character (`-` too) the UTF-8 bytes become `-` and two hexadecimal digits each, so that two names never give the same
 * part. `=` would make a column of it for readers that know Hive's folders.
 */
export function keySegment(name: string): string {
  let text = '';
  for (const byte of Buffer.from(name, 'utf8')) {
    const character = String.fromCharCode(byte);
    // Dots alone would lead out of the folder; a first dot or underscore hides a file from some readers.
    const plain = text === '' ? /[A-Za-z0-9]/ : /[A-Za-z0-9_.]/;
    text += plain.test(character) ? character : `-${byte.toString(16).padStart(2, '0')}`;
  }
  return text;
}

/** Parts below a location. */
export function below(location: string, ...parts: string[]): string {
  return [location.replace(/\/+$/, ''), ...parts].join('/');
}
