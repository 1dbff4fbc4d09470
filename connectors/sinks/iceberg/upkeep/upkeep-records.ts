/**
 * What a piece of upkeep is about to write, recorded beside the destination's progress before it is: whoever is killed
 * leaves a record, by which the next one takes away what did not come into the table.
 *
 * A record may be taken away from a writer that lives: it is marked as void, and the table gets a snapshot that changes
 * nothing. What the writer prepared on the one before is refused; before it prepares anew it looks whether its record is
 * void.
 */
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import type { TableIdentifier } from '../catalog/catalog.ts';
import { printJson } from '../catalog/exact-json.ts';
import { CommitConflict } from '../catalog/failures.ts';
import { metadataLocation } from '../commit/locations.ts';
import type { FileStore } from '../file-store.ts';
import type { Lake, OpenTable } from '../lake.ts';
import { fence } from '../progress/progress-table.ts';
import type { TableMetadata } from '../spec/table-metadata.ts';
import { removeUnnamed } from './reachable-files.ts';

interface RecordBody {
  id: string;
  host: string;
  pid: number;
  /** Tells a process from a later one with the same number. */
  instance: string;
  startedMs: number;
  identifier: TableIdentifier;
  uuid: string;
  /** Of the snapshots that would have the files. */
  snapshotIds: string[];
  files: string[];
  /** The files go once these snapshots did; then `snapshotIds` is empty. */
  expired?: string[];
  void?: true;
}

const instance = randomUUID();
/** Of a process on another machine nobody can tell whether it lives; no piece of upkeep takes so long. */
const abandonedAfterMs = 60 * 60 * 1000;
const fenceTries = 10;

/** With a slash at the end. */
export function upkeepLocation(progress: TableMetadata): string {
  return `${metadataLocation(progress)}/tidemark-upkeep/`;
}

export class UpkeepRecord {
  readonly #store: FileStore;
  readonly #location: string;
  readonly #body: RecordBody;

  constructor(progress: OpenTable, { identifier, metadata }: OpenTable) {
    const id = randomUUID();
    this.#store = progress.store;
    this.#location = `${upkeepLocation(progress.metadata)}${id}.json`;
    this.#body = {
      id,
      host: hostname(),
      pid: process.pid,
      instance,
      startedMs: Date.now(),
      identifier,
      uuid: metadata['table-uuid'],
      snapshotIds: [],
      files: [],
    };
  }

  /** Before the files are written. */
  async willWrite(snapshotId: bigint, files: readonly string[]): Promise<void> {
    this.#body.snapshotIds.push(String(snapshotId));
    this.#body.files = [...files];
    await this.#put();
  }

  /** Before the snapshots go. */
  async willExpire(snapshotIds: readonly bigint[], files: readonly string[]): Promise<void> {
    this.#body.expired = snapshotIds.map(String);
    this.#body.files = [...files];
    await this.#put();
  }

  async #put(): Promise<void> {
    await this.#store.put(this.#location, Buffer.from(printJson(this.#body)));
  }

  /** Whether nobody took the record for a dead one's. Asked after the table was loaded on which a commit is made. */
  async stands(): Promise<boolean> {
    // Nothing was written yet.
    if (this.#body.files.length === 0) return true;
    const body = await this.#store.get(this.#location);
    return body !== null && readBody(body)?.void !== true;
  }

  async remove(): Promise<void> {
    await this.#store.delete([this.#location]);
  }
}

/** @returns how many files of dead writers were removed */
export async function sweepUpkeep(lake: Lake, progress: OpenTable): Promise<number> {
  let removed = 0;
  const locations: string[] = [];
  for await (const page of progress.store.list(upkeepLocation(progress.metadata)))
    locations.push(...page.map(({ location }) => location));
  for (const location of locations) {
    const bytes = await progress.store.get(location);
    const body = bytes && readBody(bytes);
    if (body && !isAbandoned(body)) continue;
    if (body) {
      await progress.store.put(location, Buffer.from(printJson({ ...body, void: true })));
      removed += await sweepRecord(lake, body);
    }
    await progress.store.delete([location]);
  }
  return removed;
}

/** Files that records name are not orphans, whatever their age. */
export async function recordedFiles(progress: OpenTable, folder: string): Promise<Set<string>> {
  const files = new Set<string>();
  for await (const page of progress.store.list(folder)) {
    for (const { location } of page) {
      const bytes = await progress.store.get(location);
      const body = bytes && (readBody(bytes) as Partial<RecordBody> & { tables?: { files: string[] }[] });
      for (const file of body?.files ?? body?.tables?.flatMap((each) => each.files) ?? []) files.add(file);
    }
  }
  return files;
}

function readBody(bytes: Buffer): RecordBody | null {
  try {
    return JSON.parse(bytes.toString('utf8')) as RecordBody;
  } catch {
    // Cut off by a crash: it came before its first file.
    return null;
  }
}

function isAbandoned(body: RecordBody): boolean {
  if (body.instance === instance) return false;
  if (body.host === hostname()) {
    try {
      if (body.pid !== process.pid) process.kill(body.pid, 0);
      else return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ESRCH') return true;
    }
  }
  return Date.now() - body.startedMs > abandonedAfterMs;
}

async function sweepRecord(lake: Lake, body: RecordBody): Promise<number> {
  for (let tries = 1; ; tries += 1) {
    const table = await lake.load(body.identifier);
    if (table === null || table.metadata['table-uuid'] !== body.uuid) return 0;
    const ids = new Set(table.metadata.snapshots.map((each) => String(each['snapshot-id'])));
    if (body.expired) {
      if (body.expired.some((id) => ids.has(id))) return 0;
      return removeUnnamed(table, body.files);
    }
    if (body.snapshotIds.some((id) => ids.has(id))) return removeUnnamed(table, body.files);
    try {
      await fence(lake, table, {});
    } catch (error) {
      if (!(error instanceof CommitConflict) || tries === fenceTries) throw error;
      continue;
    }
    const after = await lake.load(body.identifier);
    return after === null ? 0 : removeUnnamed(after, body.files);
  }
}
