/** A folder per destination and process under deliver.spill.directory; what dead processes left there is wiped. */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { TidemarkError } from '../platform/errors.ts';

/** Folders of this process: several workers of one destination may live in it. */
const ours = new Set<string>();

/**
 * @returns the path of a new, empty folder
 * @throws TidemarkError TM406 when it cannot be made
 */
export async function createSpillDirectory(spillDirectory: string, destination: string): Promise<string> {
  const parent = join(spillDirectory, destination);
  try {
    await mkdir(parent, { recursive: true });
    for (const name of await readdir(parent)) {
      if (!ours.has(join(parent, name)) && isAbandoned(name))
        await rm(join(parent, name), { recursive: true, force: true });
    }
    const path = join(parent, `${process.pid}-${randomBytes(4).toString('hex')}`);
    await mkdir(path);
    ours.add(path);
    return path;
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    throw new TidemarkError('TM406', `the folder ${parent} cannot be used (${String(code)})`, {
      cause: error,
      remedy: 'Make deliver.spill.directory a folder that this user may write to.',
    });
  }
}

export async function removeSpillDirectory(path: string): Promise<void> {
  ours.delete(path);
  await rm(path, { recursive: true, force: true });
}

/** Whether the folder is of our making and its process is gone. A pid that is ours is a container's earlier life. */
function isAbandoned(name: string): boolean {
  const pid = Number(/^(\d+)-[0-9a-f]{8}$/.exec(name)?.[1] ?? 0);
  if (pid === 0) return false;
  if (pid === process.pid) return true;
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return (error as { code?: unknown }).code === 'ESRCH';
  }
}
