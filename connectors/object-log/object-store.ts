/**
 * What a sink needs of a place for objects. Keys are relative to the destination's URL and use `/`.
 * Failures are TidemarkErrors: TM401 where trying again may help, TM402 where a right is missing.
 */
export interface ObjectStore {
  /** The destination's URL as DuckDB reads it (`s3://bucket/prefix` or an absolute path), no trailing slash. */
  readonly readableUrl: string;
  /** Stores a finished local file; an existing object of that key is replaced. Durable when it returns. */
  putFile(key: string, localPath: string, contentType: string): Promise<void>;
  /** Stores a small body; an existing object is replaced. Durable when it returns. */
  put(key: string, body: Buffer): Promise<void>;
  /**
   * Stores a small body only if nothing has that key, decided atomically by the store.
   * A thrown TM401 leaves the outcome unknown: read the key back.
   */
  putIfAbsent(key: string, body: Buffer): Promise<'written' | 'exists'>;
  /** The whole object, or null where there is none. */
  get(key: string): Promise<Buffer | null>;
  /** Copies an object to a local file. */
  download(key: string, localPath: string): Promise<void>;
  /** Up to `limit` (at most 1,000) keys below a folder (`a/b/`), in order, after the key `after`. */
  listPage(folder: string, after: string | null, limit: number): Promise<string[]>;
  /** Keys that do not exist are ignored. */
  delete(keys: readonly string[]): Promise<void>;
  /** Where DuckDB can open the object without the sink's help; null where it must be downloaded. */
  localPath(key: string): string | null;
  close(): Promise<void>;
}

/** Every key below a folder, in pages. */
export function listAll(store: ObjectStore, folder: string): AsyncIterable<string[]> {
  return listAllAfter(store, folder, null);
}

/** Every key below a folder after the key `start`, in pages. */
export async function* listAllAfter(
  store: ObjectStore,
  folder: string,
  start: string | null,
): AsyncIterable<string[]> {
  for (let after = start; ; ) {
    const page: string[] = await store.listPage(folder, after, 1000);
    if (page.length > 0) yield page;
    if (page.length < 1000) return;
    after = page[page.length - 1]!;
  }
}
