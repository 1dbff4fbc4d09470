/** Where a local stack keeps its files. */
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';

export const partNames = ['postgres', 'kafka', 'registry', 's3', 'clickhouse', 'iceberg'] as const;
export type PartName = (typeof partNames)[number];

/** Absolute paths; one layout belongs to one stack, except `downloads`, which all stacks of a checkout share. */
export interface StackLayout {
  root: string;
  data: string;
  logs: string;
  /** Process records, the owner and the environment of a running stack; meaningless once it is down. */
  run: string;
  downloads: string;
  /** Ports and passwords, kept from one start to the next. */
  settingsFile: string;
  ownerFile: string;
  environmentFile: string;
}

const projectRoot = resolve(import.meta.dirname, '..');

/** The stack's folder: the argument, or TIDEMARK_STACK_DIR, or `.tidemark/stack` in the project. */
export function stackLayout(directory?: string): StackLayout {
  const chosen = directory ?? process.env.TIDEMARK_STACK_DIR;
  const root = chosen ? resolve(chosen) : join(projectRoot, '.tidemark', 'stack');
  const run = join(root, 'run');
  return {
    root,
    data: join(root, 'data'),
    logs: join(root, 'logs'),
    run,
    downloads: join(projectRoot, '.tidemark', 'downloads'),
    settingsFile: join(root, 'settings.json'),
    ownerFile: join(run, 'owner.json'),
    environmentFile: join(run, 'environment.json'),
  };
}

/** Makes the folders. Postgres runs as another user when we are root, so it must be able to pass through them. */
export async function createLayout(layout: StackLayout): Promise<void> {
  for (const folder of [layout.root, layout.data, layout.logs, layout.run, layout.downloads]) {
    await mkdir(folder, { recursive: true, mode: 0o755 });
  }
}

/** Reads a JSON file of ours; undefined when it is missing or was cut short by a crash. */
export async function readJson<Shape>(file: string): Promise<Shape | undefined> {
  if (!existsSync(file)) return undefined;
  try {
    return JSON.parse(await readFile(file, 'utf8')) as Shape;
  } catch {
    return undefined;
  }
}

/** Replaces a JSON file in one step, readable by its owner alone: some of these hold passwords. */
export async function writeJson(file: string, value: unknown): Promise<void> {
  const next = `${file}.${process.pid}.new`;
  await writeFile(next, `${JSON.stringify(value, null, 2)}\n`, { mode: 0o600 });
  await rename(next, file);
}
