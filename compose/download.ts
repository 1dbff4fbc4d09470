/** Things fetched from Maven Central and PyPI, each complete or not there at all. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { readProcess } from './process.ts';

export interface Download {
  /** Short name; the folder is `<name>-<hash of the pin file>`, so that a changed pin is fetched anew. */
  name: string;
  /** The file that pins the version. */
  pinFile: string;
  /** Our own files that go into it: a change of them is a new download as well. */
  furtherFiles?: readonly string[];
  /** For the progress line: what is fetched, from where and about how much. */
  announcement: string;
  /** Fills the empty folder it is given. */
  fill: (folder: string) => Promise<void>;
}

/**
 * The folder of a finished download. It is filled under another name and renamed at the end: an interrupted
 * download leaves nothing that looks whole, and two stacks that start at once do each other no harm.
 */
export async function ensureDownload(
  downloads: string,
  download: Download,
  log: (line: string) => void,
): Promise<string> {
  const hash = createHash('sha256');
  for (const file of [download.pinFile, ...(download.furtherFiles ?? [])]) hash.update(await readFile(file));
  const pin = hash.digest('hex').slice(0, 12);
  const folder = join(downloads, `${download.name}-${pin}`);
  if (existsSync(folder)) return folder;
  await removeAbandoned(downloads, download.name);
  log(`downloading ${download.announcement}`);
  const staging = `${folder}.${process.pid}.part`;
  await mkdir(staging, { recursive: true });
  try {
    await download.fill(staging);
    await rename(staging, folder).catch((error: unknown) => {
      // Another stack finished the same download first.
      if (!existsSync(folder)) throw error;
    });
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
  return folder;
}

async function removeAbandoned(downloads: string, name: string): Promise<void> {
  for (const entry of await readdir(downloads)) {
    const pid = entry.startsWith(`${name}-`) ? /\.(\d+)\.part$/.exec(entry)?.[1] : undefined;
    if (pid === undefined || readProcess(Number(pid)) !== undefined) continue;
    await rm(join(downloads, entry), { recursive: true, force: true });
  }
}
