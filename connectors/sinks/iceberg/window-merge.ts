/** One Window: every table of it merged on this machine, written, and committed with what the destination then holds. */
import { randomUUID } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { MergeTable, MergeWindow, Receipt } from '../../../src/connector/sink.ts';
import { duckdbFailure } from '../../object-log/duckdb-failure.ts';
import { prepareCommit } from './commit/prepare-commit.ts';
import type { PreparedTable } from './commit/table-commit.ts';
import type { WindowTable } from './commit-window.ts';
import { type Database, openDatabase } from './files/database.ts';
import type { WrittenFile } from './files/write-data-files.ts';
import { finishWindow, prepareAppend, windowSummary } from './finish-window.ts';
import type { OpenTable } from './lake.ts';
import { type FinishSettings, finishDeletes, finishRows } from './merge/finish-table.ts';
import { HistoryRows, newHistory } from './merge/history.ts';
import { movedFields, nextLayout } from './merge/next-layout.ts';
import { identifierOf } from './names.ts';
import { memoryKey } from './options.ts';
import type { LiveChange } from './plan/live-files.ts';
import { Attempt, PendingFiles } from './progress/attempt.ts';
import { markProperties, propertyNames, readMark } from './progress/properties.ts';
import { checkHistory } from './progress/table-history.ts';
import { definitionOf, openTable, type RunningTable, type Surroundings } from './running-table.ts';
import { applyUpdates } from './spec/apply-updates.ts';
import { currentSchema, type TableMetadata } from './spec/table-metadata.ts';
import { WindowCounts } from './window-counts.ts';

export class WindowMerge {
  readonly #at: Surroundings;
  readonly #window: MergeWindow;
  readonly #progress: OpenTable;
  readonly #folder: string;
  readonly #tables = new Map<string, RunningTable>();
  readonly #histories = new Map<string, { table: OpenTable; rows: HistoryRows | null }>();
  readonly #counts = new WindowCounts();
  #database: Database | null = null;

  constructor(at: Surroundings, window: MergeWindow, progress: OpenTable) {
    this.#at = at;
    this.#window = window;
    this.#progress = progress;
    this.#folder = join(at.context.scratchDirectory, `window-${randomUUID()}`);
  }

  /** @throws TidemarkError; StaleMerge where it has to be made again */
  async run(): Promise<Receipt> {
    const { context, settings } = this.#at;
    await mkdir(this.#folder, { recursive: true });
    const attempt = new Attempt(this.#progress, this.#window.sequence, this.#window.fencingToken);
    try {
      this.#database = await openDatabase(this.#folder, settings.memoryBytes);
      for (const table of this.#window.tables) {
        await this.#mergeTable(table);
        if (settings.history) await this.#appendHistory(table);
      }
      for (const sweep of this.#window.sweeps) {
        const { merge } = await this.#running(sweep.shape);
        const removed = merge ? await this.#inDuckdb(() => merge.sweep(sweep.since)) : 0;
        this.#counts.rows.deleted += removed;
        if (removed > 0) {
          context.log('info', 'removed rows that are not in the source, as a snapshot has shown', {
            table: tableName(sweep.shape),
            rows: removed,
          });
        }
      }
      const prepared = await this.#prepare(attempt);
      await context.failpoint('iceberg-sink-staged');
      const receipt = await finishWindow(this.#at, this.#window, this.#progress, attempt, prepared, {
        rows: this.#counts.rows,
        contentHash: this.#counts.hash,
      });
      this.#database.giveBack();
      return receipt;
    } catch (error) {
      await attempt.abandon().catch(() => undefined);
      throw error;
    } finally {
      this.#database?.close();
      await rm(this.#folder, { recursive: true, force: true });
    }
  }

  async #inDuckdb<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw duckdbFailure(error, 'merge rows', memoryKey);
    }
  }

  async #running(shape: TableShape): Promise<RunningTable> {
    const identifier = identifierOf(this.#at.settings.namespace, shape);
    const key = JSON.stringify(identifier);
    const known = this.#tables.get(key);
    if (known) return known;
    const { connection } = this.#database!;
    const running = await openTable(this.#at, this.#window, connection, `t${this.#tables.size}`, shape);
    this.#tables.set(key, running);
    return running;
  }

  async #mergeTable(table: MergeTable): Promise<void> {
    const { shape, truncated } = table;
    const running = await this.#running(shape);
    const { merge } = running;
    if (truncated) this.#counts.truncate(shape);
    if (merge && JSON.stringify(merge.layout.shape) !== JSON.stringify(shape)) {
      const { metadata } = running;
      const now = applyUpdates(metadata, running.definition, Date.now());
      const next = nextLayout(merge.layout, currentSchema(now), now['last-column-id'], shape, now);
      running.moved = movedFields(running.moved, merge.layout, next);
      if (next.schemaChanged) running.definition = definitionOf(metadata, next, running.moved);
      await this.#inDuckdb(() => merge.evolve(next));
    }
    const staged = merge?.stage() ?? null;
    if (shape.keyColumns.length > 0) {
      for await (const states of table.states()) {
        for (const state of states) {
          this.#counts.state(state);
          const waiting = staged?.addState(state);
          if (waiting) await waiting;
        }
      }
    } else {
      for await (const counts of table.counts()) {
        for (const row of counts) {
          this.#counts.count(row);
          const waiting = staged?.addCount(row, this.#window.to);
          if (waiting) await waiting;
        }
      }
    }
    if (!merge || !staged) return;
    await this.#inDuckdb(async () => {
      await staged.end();
      await (shape.keyColumns.length > 0
        ? merge.mergeStates(staged, truncated)
        : merge.mergeCounts(staged, truncated));
    });
  }

  async #appendHistory({ shape, events }: MergeTable): Promise<void> {
    const { lake, settings, context } = this.#at;
    const own = identifierOf(settings.namespace, shape);
    const identifier = { ...own, name: `${own.name}_changes` };
    const key = JSON.stringify(identifier);
    let history = this.#histories.get(key);
    if (!history) {
      const table = await lake.ensure(identifier, () => newHistory(this.#window));
      const mark = readMark(table.metadata.properties, context, `table ${identifier.name}`);
      checkHistory(table);
      const holds = mark !== null && mark.sequence >= this.#window.sequence;
      const rows = holds ? null : new HistoryRows(this.#database!.connection, `h${this.#histories.size}`);
      await rows?.begin();
      history = { table, rows };
      this.#histories.set(key, history);
    }
    if (history.rows === null) return;
    for await (const batch of events()) for (const event of batch) history.rows.add(shape, event);
  }

  async #prepare(attempt: Attempt): Promise<WindowTable[]> {
    const tables: WindowTable[] = [];
    for (const { table, merge, definition, hadRetired } of this.#tables.values()) {
      if (!merge) continue;
      const metadata = applyUpdates(table.metadata, definition, Date.now());
      const files = new PendingFiles(table.store);
      const rows = await this.#inDuckdb(() =>
        finishRows(this.#database!.connection, merge, metadata, this.#finishSettings()),
      );
      await this.#add(files, rows.files);
      const prepare = async (now: TableMetadata) => {
        const deletes = await this.#inDuckdb(() =>
          finishDeletes(this.#database!.connection, merge, now, this.#finishSettings()),
        );
        await this.#add(files, deletes.files);
        const { added, removed } = rows;
        return prepareCommit(files, now, { added, removed, deletes: deletes.deletes });
      };
      let prepared = await prepare(metadata);
      const replan = async (now: OpenTable, change: LiveChange) => {
        if (!(await this.#inDuckdb(() => merge.replan(change)))) return null;
        const { manifests, change: before } = prepared;
        const unused = [
          ...manifests.map(({ manifest_path: path }) => path),
          ...before.deletes.map(({ file }) => file.file_path),
        ];
        prepared = await prepare(applyUpdates(now.metadata, definition, Date.now()));
        attempt.replace(now, prepared.snapshotId, unused);
        return prepared;
      };
      const retired = hadRetired || (await merge.addsRetired());
      attempt.add(table, prepared.snapshotId, files);
      const merged: PreparedTable = {
        table,
        live: merge.base.live,
        prepared,
        replan,
        definition,
        properties: {
          ...markProperties(this.#window, attempt.id),
          [propertyNames.layout]: merge.layout.print(),
          ...(retired ? { [propertyNames.retired]: 'true' } : {}),
        },
        summary: windowSummary(this.#window),
      };
      tables.push({ table: merged, files });
    }
    for (const { table, rows } of this.#histories.values()) {
      if (rows === null || rows.rows === 0) continue;
      const { files } = await this.#inDuckdb(() => rows.finish(table.metadata, this.#finishSettings()));
      tables.push(await prepareAppend(this.#at, this.#window, attempt, table, { files }));
    }
    return tables;
  }

  async #add(files: PendingFiles, written: readonly WrittenFile[]): Promise<void> {
    files.addLocal(written);
    // The next Window looks for rows in them, and need not fetch them.
    for (const { file, localPath } of written)
      await this.#at.cache.copies.keep(file.file_path, localPath, file.file_size_in_bytes);
  }

  #finishSettings(): FinishSettings {
    const { settings } = this.#at;
    return {
      folder: join(this.#folder, randomUUID()),
      memoryBytes: settings.memoryBytes,
      rowGroupRows: settings.rowGroupRows,
      targetFileBytes: settings.targetFileBytes,
      granularity: settings.deleteGranularity,
    };
  }
}
