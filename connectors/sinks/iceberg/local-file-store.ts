/** Table files in directories of this machine. A file appears complete and fsynced: it is written beside and renamed. */
import { randomBytes } from 'node:crypto';
import type { Dirent } from 'node:fs';
import { copyFile, mkdir, open, readdir, readFile, rename, rm, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type FileEntry, type FileStore, parseLocation } from './file-store.ts';

const pageEntries = 1000;
/** Files that are being written; no reader of Iceberg looks at what starts with a dot. */
const temporaryPrefix = '.tidemark-';

export class LocalFileStore implements FileStore {
  async get(location: string): Promise<Buffer | null> {
    return orNull('read a file', () => readFile(pathOf(location)));
  }

  async getRange(location: string, start: number, length: number): Promise<Buffer | null> {
    return orNull('read a file', async () => {
      const handle = await open(pathOf(location), 'r');
      try {
        const buffer = Buffer.alloc(length);
        const { bytesRead } = await handle.read(buffer, 0, length, start);
        return buffer.subarray(0, bytesRead);
      } finally {
        await handle.close();
      }
    });
  }

  async put(location: string, body: Buffer): Promise<void> {
    await place(pathOf(location), async (temporary) => {
      const handle = await open(temporary, 'wx');
      try {
        await handle.writeFile(body);
      } finally {
        await handle.close();
      }
    });
  }

  async putFile(location: string, localPath: string): Promise<void> {
    await place(pathOf(location), (temporary) => copyFile(localPath, temporary));
  }

  async delete(locations: readonly string[]): Promise<void> {
    for (const location of locations) await orNull('delete a file', () => unlink(pathOf(location)));
  }

  async *list(prefix: string, unfinished = false): AsyncIterable<FileEntry[]> {
    const path = pathOf(prefix);
    const scheme = prefix.slice(0, prefix.length - path.length);
    // A prefix need not end where a name does.
    const folder = path.endsWith('/') ? path.slice(0, -1) : dirname(path);
    const start = path.endsWith('/') ? '' : basename(path);
    let page: FileEntry[] = [];
    for await (const found of filesBelow(folder, start, unfinished)) {
      page.push({ ...found, location: `${scheme}${found.location}` });
      if (page.length < pageEntries) continue;
      yield page;
      page = [];
    }
    if (page.length > 0) yield page;
  }

  async close(): Promise<void> {}
}

async function* filesBelow(folder: string, start: string, unfinished: boolean): AsyncIterable<FileEntry> {
  const entries = await orNull('list files', () => readdir(folder, { withFileTypes: true }));
  for (const entry of (entries ?? []).sort(byName)) {
    if (!entry.name.startsWith(start)) continue;
    if (entry.name.startsWith(temporaryPrefix) && !unfinished) continue;
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      yield* filesBelow(path, '', unfinished);
      continue;
    }
    const found = await orNull('list files', () => stat(path));
    if (found !== null) yield { location: path, size: found.size, modifiedMs: found.mtimeMs };
  }
}

function byName(one: Dirent, other: Dirent): number {
  return one.name < other.name ? -1 : 1;
}

function pathOf(location: string): string {
  const parsed = parseLocation(location);
  if (parsed.kind === 'file') return parsed.path;
  throw new TidemarkError('TM101', 'a table has files on this machine and elsewhere', {
    remedy: 'Keep each table in one place.',
  });
}

/** Writes beside the target, makes it durable and gives it its name. */
async function place(target: string, write: (temporary: string) => Promise<void>): Promise<void> {
  const folder = dirname(target);
  const temporary = join(folder, `${temporaryPrefix}${randomBytes(12).toString('hex')}`);
  try {
    const first = await mkdir(folder, { recursive: true });
    if (first !== undefined) {
      for (let made = folder; made.length >= first.length; made = dirname(made)) await sync(dirname(made));
    }
    await write(temporary);
    await sync(temporary);
    await rename(temporary, target);
    await sync(folder);
  } catch (error) {
    throw classify(error, 'write a file');
  } finally {
    await rm(temporary, { force: true }).catch(() => undefined);
  }
}

async function sync(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function orNull<T>(what: string, work: () => Promise<T>): Promise<T | null> {
  try {
    return await work();
  } catch (error) {
    if (errno(error) === 'ENOENT') return null;
    throw classify(error, what);
  }
}

function errno(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? 'unknown';
}

/** The system's own messages hold paths, and paths hold partition values: only its codes are used. */
function classify(error: unknown, what: string): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const code = errno(error);
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') {
    return new TidemarkError('TM402', `cannot ${what}: ${code}`, {
      remedy: 'Give the Tidemark process read and write rights on the warehouse’s directory.',
    });
  }
  return new TidemarkError('TM401', `cannot ${what}: ${code}`, {
    ...(code === 'ENOSPC' || code === 'EDQUOT'
      ? { remedy: 'Free space on the warehouse’s volume; delivery goes on by itself.' }
      : {}),
  });
}
