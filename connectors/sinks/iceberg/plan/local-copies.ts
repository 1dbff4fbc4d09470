/**
 * Data and delete files where DuckDB can read them. Files in a directory of this machine are read where they are. Of a
 * data file elsewhere, its footer and the wanted columns are fetched into a file with holes: a key is often a hundredth of
 * a row. Files never change, so a copy holds until there is no room for it.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, type FileHandle, link, mkdir, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { quoteText } from '../../../object-log/sql-text.ts';
import { malformed, unsupported } from '../failures.ts';
import type { FileStore } from '../file-store.ts';
import { parseLocation } from '../file-store.ts';
import type { LiveFile } from './live-file.ts';
import { parquetColumns } from './parquet-columns.ts';

/** Of the end of a file, fetched at first: most footers are in it. */
const tailBytes = 64 * 1024;
/** Two ranges are fetched as one where less lies between them. */
const gapBytes = 128 * 1024;
const parquetMagic = Buffer.from('PAR1', 'latin1');
const whole = 'whole';

export type ReadableStore = Pick<FileStore, 'get' | 'getRange'>;

/** What is to be read of a file. */
export interface WantedColumns {
  /** Field ids. */
  ids: ReadonlySet<number>;
  /** Names in files without ids. */
  names: ReadonlySet<string>;
}

export class LocalCopies {
  readonly #folder: string;
  /** By their names in the folder; least recently used first. */
  readonly #bytesOf = new Map<string, number>();
  #bytes = 0;

  /** @param folder of its own, made when it is needed */
  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Keeps a file that was written here, so that it need not be fetched. */
  async keep(location: string, localPath: string, bytes: number): Promise<void> {
    if (directPath(location) !== null) return;
    await mkdir(this.#folder, { recursive: true });
    const name = copyName(location, whole);
    const path = join(this.#folder, name);
    await rm(path, { force: true });
    // Another file system has no links to this one's files.
    await link(localPath, path).catch(() => copyFile(localPath, path));
    this.#note(name, bytes);
  }

  /** A path with the whole file. */
  async whole(store: ReadableStore, file: LiveFile): Promise<string> {
    const there = this.#find(file, whole);
    if (there !== null) return there;
    return this.#fill(copyName(file.path, whole), async (handle) => {
      const bytes = await store.get(file.path);
      if (bytes === null) throw malformed(`the file ${file.path} is gone`);
      await handle.writeFile(bytes);
      return bytes.length;
    });
  }

  /** A path at which the file has its footer and the columns; what else it has may be zeros. */
  async columns(
    store: ReadableStore,
    connection: DuckDBConnection,
    file: LiveFile,
    wanted: WantedColumns,
  ): Promise<string> {
    const part = [...wanted.ids].sort((a, b) => a - b).join('-');
    const there = this.#find(file, whole) ?? this.#find(file, part);
    if (there !== null) return there;
    return this.#fill(copyName(file.path, part), async (handle, path) => {
      await handle.truncate(file.bytes);
      await handle.write(parquetMagic, 0, parquetMagic.length, 0);
      let fetched = 0;
      const fetch = async (start: number, length: number) => {
        const bytes = await store.getRange(file.path, start, length);
        if (bytes?.length !== length) throw malformed(`the file ${file.path} is gone or was cut short`);
        await handle.write(bytes, 0, length, start);
        fetched += length;
        return bytes;
      };
      const tail = Math.min(tailBytes, file.bytes);
      const end = await fetch(file.bytes - tail, tail);
      if (!end.subarray(-4).equals(parquetMagic)) throw malformed(`the file ${file.path} is no Parquet file`);
      const footer = end.readUInt32LE(end.length - 8) + 8;
      if (footer > tail) await fetch(file.bytes - footer, footer - tail);
      for (const [start, length] of await columnRanges(connection, path, wanted)) await fetch(start, length);
      return fetched;
    });
  }

  /** Makes room; between queries, when none names a copy. */
  async trim(mostBytes: number): Promise<void> {
    for (const [name, bytes] of this.#bytesOf) {
      if (this.#bytes <= mostBytes) return;
      this.#bytesOf.delete(name);
      this.#bytes -= bytes;
      await rm(join(this.#folder, name), { force: true });
    }
  }

  #find({ path: location, format }: LiveFile, part: string): string | null {
    if (format !== 'PARQUET') {
      throw unsupported(
        `the table has a file in ${format}`,
        'Rewrite the table’s files as Parquet, with the tool that writes it.',
      );
    }
    const direct = directPath(location);
    if (direct !== null) return direct;
    const name = copyName(location, part);
    const bytes = this.#bytesOf.get(name);
    const path = join(this.#folder, name);
    // The folder is anybody's to empty.
    if (bytes === undefined || !existsSync(path)) return null;
    this.#note(name, bytes);
    return path;
  }

  #note(name: string, bytes: number): void {
    this.#bytes += bytes - (this.#bytesOf.get(name) ?? 0);
    this.#bytesOf.delete(name);
    this.#bytesOf.set(name, bytes);
  }

  /** It has its name when it is complete. @param fill gives how many bytes it has */
  async #fill(name: string, fill: (handle: FileHandle, path: string) => Promise<number>): Promise<string> {
    await mkdir(this.#folder, { recursive: true });
    const path = join(this.#folder, name);
    const unfinished = `${path}.part`;
    const handle = await open(unfinished, 'w');
    let bytes: number;
    try {
      bytes = await fill(handle, unfinished);
    } catch (error) {
      await rm(unfinished, { force: true });
      throw error;
    } finally {
      await handle.close();
    }
    await rename(unfinished, path);
    this.#note(name, bytes);
    return path;
  }
}

function copyName(location: string, part: string): string {
  return `${createHash('sha256').update(`${part} ${location}`).digest('hex')}.parquet`;
}

/** Null where DuckDB cannot be given the path: it would look for several files. */
function directPath(location: string): string | null {
  const parsed = parseLocation(location);
  return parsed.kind === 'file' && !/[*?[\]{}]/.test(parsed.path) ? parsed.path : null;
}

async function columnRanges(
  connection: DuckDBConnection,
  path: string,
  { ids, names }: WantedColumns,
): Promise<[start: number, length: number][]> {
  const paths = (await parquetColumns(connection, path))
    .filter(({ name, id }) => (id === null ? names.has(name) : ids.has(id)))
    .map(({ name }) => name);
  if (paths.length === 0) return [];
  // What is within a list or a struct has a path behind its name.
  const wanted = paths.map(
    (name) => `path_in_schema = ${quoteText(name)} OR starts_with(path_in_schema, ${quoteText(`${name}, `)})`,
  );
  const chunks = await connection.runAndReadAll(
    `SELECT least(data_page_offset, coalesce(dictionary_page_offset, data_page_offset)) AS start, total_compressed_size
       FROM parquet_metadata(${quoteText(path)}) WHERE ${wanted.join(' OR ')} ORDER BY 1`,
  );
  const ranges: [number, number][] = [];
  for (const [offset, size] of chunks.getRows()) {
    const [start, length] = [Number(offset), Number(size)];
    const last = ranges.at(-1);
    if (last && start - (last[0] + last[1]) < gapBytes) last[1] = start + length - last[0];
    else ranges.push([start, length]);
  }
  return ranges;
}
