/** At most one process runs a stack folder. */
import { link, rename, rm, writeFile } from 'node:fs/promises';
import { readJson, type StackLayout } from './layout.ts';
import { isAlive, type ProcessRecord, readProcess } from './process.ts';
import { stackError } from './stack-error.ts';

export interface Owner extends ProcessRecord {
  /** `command`: our own command, which may be told to stop. `program`: somebody's test or demo, which may not. */
  kind: 'command' | 'program';
}

/** The live owner of a stack folder, if there is one. */
export async function findOwner(layout: StackLayout): Promise<Owner | undefined> {
  const owner = await readJson<Owner>(layout.ownerFile);
  return owner !== undefined && isAlive(owner) ? owner : undefined;
}

/**
 * Takes the folder for this process, from a dead owner too.
 * @throws TidemarkError when a live process has it.
 */
export async function takeOwnership(layout: StackLayout, kind: Owner['kind']): Promise<void> {
  const startedAt = readProcess(process.pid)?.startedAt ?? '';
  const owner: Owner = {
    pid: process.pid,
    startedAt,
    mark: '',
    stopSignal: 'SIGTERM',
    stopTimeoutMs: 90_000,
    kind,
  };
  const written = `${layout.ownerFile}.${process.pid}.new`;
  const stale = `${layout.ownerFile}.${process.pid}.stale`;
  await writeFile(written, JSON.stringify(owner), { mode: 0o600 });
  try {
    // A link appears whole or not at all, and fails where there is a file: it decides between two starts at once.
    while (!(await linked(written, layout.ownerFile))) {
      const live = await findOwner(layout);
      if (live !== undefined) {
        throw stackError(
          `The stack in ${layout.root} is already run by process ${live.pid}.`,
          'Use it as it is, stop it with `npm run stack:down`, or set TIDEMARK_STACK_DIR to another folder.',
        );
      }
      // Between the look and the move another start may have taken over; then its file goes back.
      await rename(layout.ownerFile, stale).catch(() => undefined);
      const moved = await readJson<Owner>(stale);
      if (moved !== undefined && isAlive(moved)) await linked(stale, layout.ownerFile);
      await rm(stale, { force: true });
    }
  } finally {
    await rm(written, { force: true });
  }
}

async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

export async function releaseOwnership(layout: StackLayout): Promise<void> {
  await rm(layout.ownerFile, { force: true });
}
