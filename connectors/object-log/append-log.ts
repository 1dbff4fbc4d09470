/**
 * A log of Changes in an object store, whatever its data files are: encode → record the attempt → upload → commit the
 * manifest → forget the attempt. Sinks give it a format (format.ts) and are AppendSinks by it.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { TidemarkError } from '../../src/connector/failure.ts';
import type { Position } from '../../src/connector/position.ts';
import { type TableShape, tableName, unitName } from '../../src/connector/shape.ts';
import type {
  AppendSink,
  AppendWindow,
  Held,
  Readable,
  Receipt,
  Row,
  SinkContext,
} from '../../src/connector/sink.ts';
import { ChangeRows, noRows, type OpCounts, sha256 } from './change-row.ts';
import { Compaction } from './compaction.ts';
import type { CompactionChoice } from './compaction-options.ts';
import type { DataFile } from './data-file.ts';
import { assignFields, type FieldName, storedColumns } from './fields.ts';
import type { LogFormat } from './format.ts';
import { latestSqlScript } from './latest-script.ts';
import { type AttemptName, dataPath, latestSqlKey, tableFolder, tenantSegment } from './layout.ts';
import { commitManifest, heldOf, historyWith, newManifest, receiptOf } from './manifest.ts';
import type { ObjectStore } from './object-store.ts';
import { dropAttempt, recordAttempt, sweepOrphans } from './orphans.ts';
import { PartEvents, refuseNewKey } from './part-events.ts';
import { type DateChoice, dateColumn } from './partition.ts';
import { leastReadBytes, readLatestRows } from './read-back.ts';
import { UnitState } from './unit-state.ts';
import { uploadFiles } from './upload.ts';

export interface LogSettings {
  /** The option that names the URL, for messages. */
  urlKey: string;
  /** The option that caps DuckDB's memory, for messages. */
  memoryKey: string;
  memoryBytes: number;
  dates: DateChoice;
  compaction: CompactionChoice;
}

interface Encoded {
  files: DataFile[];
  shape: TableShape | null;
  /** Of the Window's parts. */
  shapes: TableShape[];
  fields: FieldName[];
  rows: OpCounts;
  contentHash: string;
}

export class AppendLog implements AppendSink, Readable {
  readonly mode = 'append' as const;
  readonly #store: ObjectStore;
  readonly #context: SinkContext;
  readonly #format: LogFormat;
  readonly #settings: LogSettings;
  readonly #compaction: Compaction;
  readonly #units = new Map<string, UnitState>();
  /** Tail of the queue of encodings: one at a time, so that memory is one encoder's whatever the number of Units. */
  #encoding: Promise<unknown> = Promise.resolve();

  constructor(store: ObjectStore, context: SinkContext, format: LogFormat, settings: LogSettings) {
    this.#store = store;
    this.#context = context;
    this.#format = format;
    this.#settings = settings;
    this.#compaction = new Compaction(store, context, format, settings.compaction, (work) =>
      this.#inTurn(work),
    );
  }

  async held(unit: string): Promise<Held | null> {
    const state = this.#state(unit);
    await state.refresh();
    // Who asks may be no writer: what an earlier worker left is for the next Window to see to.
    if (state.latest === null) return null;
    return { ...heldOf(state.latest), fencingToken: state.token };
  }

  async appendWindow(window: AppendWindow): Promise<Receipt> {
    const state = this.#state(window.unit);
    await state.refresh();
    const existing = await state.decide(window);
    await this.#sweepOnce(state);
    if (existing !== null) {
      await this.#writeLatestSql(state);
      return receiptOf(existing, true);
    }
    const attempt: AttemptName = {
      sequence: window.sequence,
      fencingToken: window.fencingToken,
      nonce: randomBytes(6).toString('hex'),
    };
    const folder = join(this.#context.scratchDirectory, `window-${attempt.nonce}`);
    try {
      await mkdir(folder, { recursive: true });
      const encoded = await this.#inTurn(() => this.#encode(window, state, folder));
      const receipt = await this.#commit(window, state, attempt, encoded);
      this.#compaction.consider(state);
      return receipt;
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }

  readTable(shape: TableShape, at: Position, retired?: (rows: Row[]) => void): AsyncIterable<Row[]> {
    const settings = {
      folder: join(this.#context.scratchDirectory, `read-${randomBytes(6).toString('hex')}`),
      memoryBytes: Math.max(this.#settings.memoryBytes / 2, leastReadBytes(shape)),
      memoryKey: this.#settings.memoryKey,
    };
    return readLatestRows(this.#store, this.#format, shape, at, settings, retired);
  }

  async close(): Promise<void> {
    await this.#compaction.close();
    await this.#encoding.catch(() => {});
    await this.#store.close();
  }

  #state(unit: string): UnitState {
    let state = this.#units.get(unit);
    if (state === undefined) {
      state = new UnitState(this.#store, this.#context, unit, this.#settings.urlKey);
      this.#units.set(unit, state);
    }
    return state;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#encoding.then(work, work);
    this.#encoding = turn.catch(() => {});
    return turn;
  }

  async #encode(window: AppendWindow, state: UnitState, folder: string): Promise<Encoded> {
    const encoded: Encoded = {
      files: [],
      shape: state.latest?.shape ?? null,
      shapes: [],
      fields: state.latest?.fields ?? [],
      rows: noRows(),
      contentHash: '0'.repeat(32),
    };
    const { fits, storageOf } = this.#format;
    let earlier: ChangeRows | null = null;
    for (const [part, table] of window.tables.entries()) {
      const { shape } = table;
      if (unitName(shape) !== window.unit) {
        throw new TidemarkError('TM901', `${window.unit}: the Window holds ${tableName(shape)}`);
      }
      if (encoded.shape) refuseNewKey(encoded.shape, shape, this.#settings.urlKey);
      const partFolder = join(folder, String(part));
      await mkdir(partFolder, { recursive: true });
      const begun = await PartEvents.begin(table, encoded.shape);
      const fields = assignFields(shape, encoded.fields, begun.since);
      const columns = storedColumns(shape, fields, storageOf);
      const choices = { fits, dates: this.#settings.dates };
      const rows: ChangeRows = new ChangeRows(shape, columns, choices, earlier);
      const { keyColumns } = shape;
      const encoder = await this.#format.open({ columns, keyColumns, folder: partFolder });
      try {
        for await (const batch of begun.batches()) {
          // In slices: a batch may be larger than what should be held twice.
          for (let start = 0; start < batch.length; start += 1024) {
            const slice = batch.slice(start, start + 1024);
            if (encoder.writeNative)
              await encoder.writeNative(slice.map((event) => rows.native(event) ?? rows.from(event)));
            else await encoder.write(slice.map((event) => rows.from(event)));
          }
          // Native buffers are freed in turns of the event loop, which promises alone never reach.
          await setImmediate();
        }
        encoded.files.push(...(await encoder.finish()));
      } finally {
        await encoder.close();
      }
      earlier = rows;
      Object.assign(encoded, { shape, fields, rows: rows.counts, contentHash: rows.contentHash });
      encoded.shapes.push(shape);
    }
    return encoded;
  }

  async #commit(
    window: AppendWindow,
    state: UnitState,
    attempt: AttemptName,
    encoded: Encoded,
  ): Promise<Receipt> {
    const { unit } = window;
    const { name, extension, encoder } = this.#format;
    const paths = encoded.files.map(({ tenant, date }, part) =>
      dataPath(attempt, tenantSegment(tenant, sha256), date, part, extension),
    );
    await this.#context.failpoint(`${name}:before-upload`);
    if (paths.length > 0) await recordAttempt(this.#store, unit, attempt, paths);
    try {
      await uploadFiles(this.#store, unit, encoded.files, paths, this.#format.contentType);
      await this.#context.failpoint(`${name}:before-manifest`);
    } catch (error) {
      // No manifest was tried, so nothing can ever name these objects. The attempt's record stays: an upload of
      // unknown outcome may still arrive, and the next sweep gets it.
      await this.#store.delete(paths.map((path) => `${tableFolder(unit)}/${path}`)).catch(() => {});
      state.swept = false;
      throw error;
    }
    const dated = encoded.shape && dateColumn(encoded.shape, this.#settings.dates);
    const manifest = newManifest(window, state.hasGenerations, {
      nonce: attempt.nonce,
      encoder,
      shape: encoded.shape,
      ...historyWith(state.latest, encoder, encoded.shapes),
      fields: encoded.fields,
      dateColumn: dated === null ? null : encoded.shape!.columns[dated]!.name,
      rows: encoded.rows,
      bytes: encoded.files.reduce((sum, { bytes }) => sum + bytes, 0),
      contentHash: encoded.contentHash,
      files: encoded.files.map(({ rows, bytes, tenant, date, longestLine }, part) => ({
        path: paths[part]!,
        rows,
        bytes,
        tenant: tenant ?? null,
        date,
        ...(longestLine === undefined ? {} : { longestLine }),
      })),
    });
    // Last look before the write that counts: a newer owner may have come while this one was encoding.
    await state.refresh();
    if (window.fencingToken < state.token) {
      await dropAttempt(this.#store, unit, attempt, paths).catch(() => {});
      throw new TidemarkError('TM403', `${unit}: a worker with a newer fencing token was here`);
    }
    // A failure here leaves the outcome open: the data stays, and a retry or the sweep decides.
    const committed = await commitManifest(this.#store, manifest);
    await this.#context.failpoint(`${name}:after-manifest`);
    const won = committed.nonce === attempt.nonce;
    if (paths.length > 0) {
      await dropAttempt(this.#store, unit, attempt, won ? [] : paths).catch(() => {
        // The sweep of the next start finds the record.
      });
    }
    if (won) state.adopt(committed);
    else await state.take(window, committed);
    await this.#sweepOnce(state);
    await this.#writeLatestSql(state);
    return receiptOf(committed, !won);
  }

  /** Once per Unit and process: attempts of this process itself are cleaned up as they end. */
  async #sweepOnce(state: UnitState): Promise<void> {
    if (state.swept || state.latest === null) return;
    state.swept = true;
    try {
      const deleted = await sweepOrphans(this.#store, state.unit, state.latest.sequence, state.token);
      if (deleted > 0) {
        this.#context.log('info', 'swept data objects of interrupted attempts', {
          unit: state.unit,
          deleted,
        });
      }
    } catch (error) {
      state.swept = false;
      this.#context.log('warn', 'could not sweep orphaned data objects', {
        unit: state.unit,
        code: error instanceof TidemarkError ? error.code : 'TM901',
      });
    }
  }

  /** A convenience for readers: failing to write it fails nothing. */
  async #writeLatestSql(state: UnitState): Promise<void> {
    const shape = state.latest?.shape;
    if (!shape) return;
    const columns = storedColumns(shape, state.latest!.fields, this.#format.storageOf);
    const base = `${this.#store.readableUrl}/${tableFolder(state.unit)}/`;
    const { uniform, reshaped } = state.latest!;
    const table = { columns, keyColumns: shape.keyColumns, uniform, reshaped };
    const sql = latestSqlScript(base, state.unit, table, this.#format);
    if (sql === state.latestSql) return;
    try {
      await this.#store.put(latestSqlKey(state.unit), Buffer.from(sql));
      state.latestSql = sql;
    } catch {
      this.#context.log('warn', 'could not write _latest.sql', { unit: state.unit });
    }
  }
}
