/**
 * Objects as files below a directory. A file appears under its name complete and fsynced: it is written in
 * `.tidemark-tmp/` and renamed, or hard-linked where it must not exist yet (link() is the one call that both
 * checks and creates atomically with complete content).
 */
import { randomBytes } from 'node:crypto';
import type { Dirent } from 'node:fs';
import { copyFile, link, mkdir, open, readdir, readFile, rename, rm, stat, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { TidemarkError } from '../../src/connector/failure.ts';
import type { DirectoryLocation } from './location.ts';
import type { ObjectStore } from './object-store.ts';

const temporaryFolder = '.tidemark-tmp';
const dayMs = 24 * 60 * 60 * 1000;

function errno(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? 'unknown';
}

function classify(error: unknown, what: string, urlKey: string): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const code = errno(error);
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') {
    return new TidemarkError('TM402', `cannot ${what}: ${code}`, {
      cause: error,
      remedy: `Give the Tidemark process read and write rights on the directory of ${urlKey}.`,
    });
  }
  return new TidemarkError('TM401', `cannot ${what}: ${code}`, {
    cause: error,
    ...(code === 'ENOSPC' || code === 'EDQUOT'
      ? { remedy: `Free space on the volume of ${urlKey}; delivery goes on by itself.` }
      : {}),
  });
}

async function syncPath(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export class FileStore implements ObjectStore {
  readonly readableUrl: string;
  readonly #root: string;
  readonly #urlKey: string;
  /** Directories known to exist and to be durable in their parents. */
  readonly #made = new Set<string>();

  private constructor({ directory, urlKey }: DirectoryLocation) {
    this.#root = directory;
    this.#urlKey = urlKey;
    this.readableUrl = directory;
  }

  /** Creates the directory where it is missing and removes temporary files older than a day. */
  static async open(location: DirectoryLocation): Promise<FileStore> {
    const store = new FileStore(location);
    const temporary = join(location.directory, temporaryFolder);
    try {
      await mkdir(temporary, { recursive: true });
      for (const name of await readdir(temporary)) {
        const path = join(temporary, name);
        const found = await stat(path).catch(() => null);
        // A day: another worker may be writing there right now.
        if (found && Date.now() - found.mtimeMs > dayMs) await rm(path, { force: true });
      }
    } catch (error) {
      throw store.#classify(error, `open the directory of ${location.urlKey}`);
    }
    return store;
  }

  async putFile(key: string, localPath: string): Promise<void> {
    await this.#place(key, (temporary) => copyFile(localPath, temporary), rename);
  }

  async put(key: string, body: Buffer): Promise<void> {
    await this.#place(key, (temporary) => writeWhole(temporary, body), rename);
  }

  async putIfAbsent(key: string, body: Buffer): Promise<'written' | 'exists'> {
    try {
      await this.#place(key, (temporary) => writeWhole(temporary, body), link);
      return 'written';
    } catch (error) {
      if (error instanceof TidemarkError && errno(error.cause) === 'EEXIST') return 'exists';
      throw error;
    }
  }

  async get(key: string): Promise<Buffer | null> {
    try {
      return await readFile(join(this.#root, key));
    } catch (error) {
      if (errno(error) === 'ENOENT') return null;
      throw this.#classify(error, `read ${key}`);
    }
  }

  async download(key: string, localPath: string): Promise<void> {
    await copyFile(join(this.#root, key), localPath).catch((error) => {
      throw this.#classify(error, `read ${key}`);
    });
  }

  async listPage(folder: string, after: string | null, limit: number): Promise<string[]> {
    const keys: string[] = [];
    const walk = async (below: string): Promise<void> => {
      let entries: Dirent[];
      try {
        entries = await readdir(join(this.#root, below), { withFileTypes: true });
      } catch (error) {
        if (errno(error) === 'ENOENT') return;
        throw this.#classify(error, `list ${folder}`);
      }
      for (const entry of entries) {
        if (entry.isDirectory()) await walk(`${below}${entry.name}/`);
        else keys.push(`${below}${entry.name}`);
      }
    };
    await walk(folder);
    keys.sort();
    return keys.filter((key) => after === null || key > after).slice(0, limit);
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) {
      await unlink(join(this.#root, key)).catch((error) => {
        if (errno(error) !== 'ENOENT') throw this.#classify(error, `delete ${key}`);
      });
    }
  }

  localPath(key: string): string {
    return join(this.#root, key);
  }

  async close(): Promise<void> {}

  #classify(error: unknown, what: string): TidemarkError {
    return classify(error, what, this.#urlKey);
  }

  /** Writes a temporary file, makes it durable, and gives it its name. */
  async #place(
    key: string,
    write: (temporary: string) => Promise<void>,
    name: (temporary: string, target: string) => Promise<void>,
  ): Promise<void> {
    const temporary = join(this.#root, temporaryFolder, randomBytes(12).toString('hex'));
    const target = join(this.#root, key);
    try {
      await this.#makeFolder(dirname(target));
      await write(temporary);
      await syncPath(temporary);
      await name(temporary, target);
      await syncPath(dirname(target));
    } catch (error) {
      throw this.#classify(error, `write ${key}`);
    } finally {
      await rm(temporary, { force: true }).catch(() => {});
    }
  }

  /** Creates a folder and syncs each new folder's parent, so that a power cut cannot lose the way to a file. */
  async #makeFolder(path: string): Promise<void> {
    if (this.#made.has(path)) return;
    const first = await mkdir(path, { recursive: true });
    if (first !== undefined) {
      for (let made = path; made.length >= first.length; made = dirname(made)) await syncPath(dirname(made));
    }
    if (this.#made.size > 10_000) this.#made.clear();
    this.#made.add(path);
  }
}

async function writeWhole(path: string, body: Buffer): Promise<void> {
  const handle = await open(path, 'wx');
  try {
    await handle.writeFile(body);
  } finally {
    await handle.close();
  }
}
