/**
 * The upkeep that a worker does by itself, between Windows: a table that is fed every few seconds stays at a few files. None
 * of it is needed for delivery: a failure is logged, and the next Windows try again.
 */
import { asTidemarkError } from '../../../../src/connector/failure.ts';
import type { AppendWindow, MergeWindow } from '../../../../src/connector/sink.ts';
import { type TableIdentifier, tableText } from '../catalog/catalog.ts';
import type { OpenTable } from '../lake.ts';
import { identifierOf } from '../names.ts';
import type { IcebergSettings } from '../options.ts';
import type { UpkeepPlace } from './commit-upkeep.ts';
import { compactTable } from './compact-table.ts';
import { expireSnapshots } from './expire-snapshots.ts';
import { sweepUpkeep } from './upkeep-records.ts';

/** After so long a run ends with what it has; later Windows continue it. */
const runMs = 30_000;
/** What one commit reads, and so how long a Window may have to wait for it. */
const mostFiles = 128;
const mostBytes = 128 * 1024 * 1024;
/** Larger files are left to `tidemark maintain`: merging them takes longer than a Window may wait. */
const mostTarget = 32 * 1024 * 1024;
const deleteRatio = 0.5;
/** Readers that began on a snapshot have so long to finish. */
const readersMs = 60 * 60 * 1000;
/** Snapshots beyond those that are kept before they go together: each time all lists are read. */
const slack = 0.25;

interface Touched {
  identifier: TableIdentifier;
  /** Windows since it was looked at. */
  windows: number;
}

export class Tidying {
  readonly #settings: IcebergSettings;
  readonly #touched = new Map<string, Touched>();
  #swept = false;
  #expiring: Promise<void> | null = null;
  #closing = false;

  constructor(settings: IcebergSettings) {
    this.#settings = settings;
  }

  /** A Window is in the tables. @returns whether there may be something to do */
  note({ tables }: MergeWindow | AppendWindow): boolean {
    const { namespace, history, compactFiles } = this.#settings;
    if (compactFiles === 0) return false;
    let due = false;
    for (const name of new Set(tables.map(({ shape }) => JSON.stringify(identifierOf(namespace, shape))))) {
      const base = JSON.parse(name) as TableIdentifier;
      for (const identifier of history ? [base, { ...base, name: `${base.name}_changes` }] : [base]) {
        const key = tableText(identifier);
        const known = this.#touched.get(key) ?? { identifier, windows: 0 };
        known.windows += 1;
        this.#touched.set(key, known);
        due ||= this.#isDue(known);
      }
    }
    return due;
  }

  #isDue({ windows }: Touched): boolean {
    return windows >= Math.max(1, this.#settings.compactFiles / 2);
  }

  /** @param waiting whether a Window waits for this to end */
  async run(place: UpkeepPlace, waiting: () => boolean): Promise<void> {
    const until = Date.now() + runMs;
    const hasTime = () => !waiting() && Date.now() < until;
    for (const [key, touched] of [...this.#touched]) {
      if (this.#closing || !this.#isDue(touched)) continue;
      touched.windows = 0;
      // Where a Window always waits, each gets its turn.
      this.#touched.delete(key);
      this.#touched.set(key, touched);
      try {
        const commits = await this.#tidy(place, touched.identifier, hasTime);
        if (commits > 0 && !hasTime()) return;
      } catch (error) {
        // What was believed of the table may be why.
        await place.lake.forget();
        const { code, message } = asTidemarkError(error);
        place.context.log('warn', 'could not merge small files', { table: key, code, message });
      }
    }
  }

  async #tidy(place: UpkeepPlace, identifier: TableIdentifier, hasTime: () => boolean): Promise<number> {
    const { lake, context } = place;
    if (!this.#swept) await sweepUpkeep(lake, place.progress);
    this.#swept = true;
    const table = await lake.load(identifier);
    if (table === null) return 0;
    const { targetFileBytes, compactFiles } = this.#settings;
    const rules = {
      targetFileBytes: Math.min(targetFileBytes, mostTarget),
      leastFiles: compactFiles,
      deleteRatio,
      mostFiles,
      mostBytes,
    };
    // One commit is made whoever waits: else a destination that is always behind would never be tidied.
    let commits = 0;
    const goOn = () => !this.#closing && (commits++ === 0 || hasTime());
    const done = await compactTable(place, table, rules, { goOn, dryRun: false, onlyCrowded: true });
    if (done.commits > 0) {
      const { filesBefore, filesAfter, deleteFilesBefore, deleteFilesAfter } = done;
      context.log('info', 'merged small files', {
        table: tableText(identifier),
        files: filesBefore,
        into: filesAfter,
        deleteFiles: deleteFilesBefore,
        deletesInto: deleteFilesAfter,
      });
    }
    this.#expire(place, table);
    return done.commits;
  }

  /** Beside the Windows: it takes nothing of what they work with. */
  #expire(place: UpkeepPlace, table: OpenTable): void {
    const { keepSnapshots } = this.#settings;
    const { properties, snapshots } = table.metadata;
    if (keepSnapshots === 0 || this.#expiring) return;
    if (snapshots.length <= keepSnapshots * (1 + slack)) return;
    const rules = {
      maxAgeMs: properties['history.expire.max-snapshot-age-ms'] === undefined ? readersMs : null,
      keepLast: properties['history.expire.min-snapshots-to-keep'] === undefined ? keepSnapshots : null,
    };
    this.#expiring = expireSnapshots(place, table, rules, false)
      .then(({ snapshotsBefore, snapshotsAfter, filesRemoved: files }) => {
        if (snapshotsAfter === snapshotsBefore) return;
        const counts = { snapshots: snapshotsBefore, left: snapshotsAfter, files };
        place.context.log('info', 'snapshots expired', { table: tableText(table.identifier), ...counts });
      })
      .catch((error) => {
        const { code, message } = asTidemarkError(error);
        const named = { table: tableText(table.identifier), code, message };
        place.context.log('warn', 'could not expire snapshots', named);
      })
      .finally(() => {
        this.#expiring = null;
      });
  }

  async close(): Promise<void> {
    this.#closing = true;
    await this.#expiring;
  }
}
