/** Appends Windows: encode → record the attempt → upload → commit the manifest → forget the attempt. */
import { randomBytes } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { Position } from '../../../src/connector/position.ts';
import { type TableShape, tableName, unitName } from '../../../src/connector/shape.ts';
import type {
  AppendSink,
  AppendWindow,
  Held,
  Readable,
  Receipt,
  Row,
  SinkContext,
} from '../../../src/connector/sink.ts';
import { ChangeRows, noRows, sha256 } from './change-row.ts';
import { assignFields, type FieldName, storedColumns } from './columns.ts';
import { DuckdbEncoder } from './encode-duckdb.ts';
import { ParquetjsEncoder } from './encode-parquetjs.ts';
import type { EncodedFile, Encoder, EncoderSettings } from './encoder.ts';
import { latestSqlScript } from './latest-view.ts';
import { type AttemptName, dataPath, latestSqlKey, tableFolder, tenantSegment } from './layout.ts';
import { commitManifest, heldOf, historyWith, type Manifest, newManifest, receiptOf } from './manifest.ts';
import type { ObjectStore } from './object-store.ts';
import type { ParquetOptions } from './options.ts';
import { dropAttempt, recordAttempt, sweepOrphans } from './orphans.ts';
import { PartEvents, refuseNewKey } from './part-events.ts';
import { readLatestRows } from './read-back.ts';
import { UnitState } from './unit-state.ts';

/** A join of a table's changes with their newest ones; 1,000,000 rows of 300 bytes pass with half of this. */
const minReadBytes = 256 * 1024 * 1024;
/** Data objects uploaded at once. */
const uploads = 4;

interface Encoded {
  files: EncodedFile[];
  shape: TableShape | null;
  /** Of the Window's parts. */
  shapes: TableShape[];
  fields: FieldName[];
  rows: Manifest['rows'];
  contentHash: string;
}

export class ParquetSink implements AppendSink, Readable {
  readonly mode = 'append' as const;
  readonly #store: ObjectStore;
  readonly #context: SinkContext;
  readonly #options: ParquetOptions;
  readonly #units = new Map<string, UnitState>();
  /** Tail of the queue of encodings: one at a time, so that memory is one encoder's whatever the number of Units. */
  #encoding: Promise<unknown> = Promise.resolve();

  constructor(store: ObjectStore, context: SinkContext, options: ParquetOptions) {
    this.#store = store;
    this.#context = context;
    this.#options = options;
  }

  async held(unit: string): Promise<Held | null> {
    const state = this.#state(unit);
    await state.refresh();
    if (state.latest === null) return null;
    await this.#sweepOnce(state);
    return { ...heldOf(state.latest), fencingToken: state.token };
  }

  async appendWindow(window: AppendWindow): Promise<Receipt> {
    const state = this.#state(window.unit);
    await state.refresh();
    const existing = await state.decide(window);
    if (existing !== null) return receiptOf(existing, true);
    const attempt: AttemptName = {
      sequence: window.sequence,
      fencingToken: window.fencingToken,
      nonce: randomBytes(6).toString('hex'),
    };
    const folder = join(this.#context.scratchDirectory, `window-${attempt.nonce}`);
    try {
      await mkdir(folder, { recursive: true });
      const encoded = await this.#inTurn(() => this.#encode(window, state, folder));
      return await this.#commit(window, state, attempt, encoded);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }

  readTable(shape: TableShape, at: Position): AsyncIterable<Row[]> {
    return readLatestRows(this.#store, unitName(shape), shape, at, {
      folder: join(this.#context.scratchDirectory, `read-${randomBytes(6).toString('hex')}`),
      memoryBytes: Math.max(this.#options.memoryBytes / 2, minReadBytes),
    });
  }

  async close(): Promise<void> {
    await this.#encoding.catch(() => {});
    await this.#store.close();
  }

  #state(unit: string): UnitState {
    let state = this.#units.get(unit);
    if (state === undefined) {
      state = new UnitState(this.#store, this.#context, unit);
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
    let earlier: ChangeRows | null = null;
    for (const [part, table] of window.tables.entries()) {
      const { shape } = table;
      if (unitName(shape) !== window.unit) {
        throw new TidemarkError('TM901', `${window.unit}: the Window holds ${tableName(shape)}`);
      }
      if (encoded.shape) refuseNewKey(encoded.shape, shape);
      const partFolder = join(folder, String(part));
      await mkdir(partFolder, { recursive: true });
      const begun = await PartEvents.begin(table, encoded.shape);
      const fields = assignFields(shape, encoded.fields, begun.since);
      const columns = storedColumns(shape, fields);
      const rows: ChangeRows = new ChangeRows(shape, columns, this.#options.encoder, earlier);
      const encoder = await this.#encoder({
        columns,
        folder: partFolder,
        compression: this.#options.compression,
        memoryBytes: this.#options.memoryBytes,
        rowGroupRows: this.#options.rowGroupRows,
      });
      try {
        for await (const batch of begun.batches()) {
          // In slices: a batch may be larger than what should be held twice.
          for (let start = 0; start < batch.length; start += 1024) {
            await encoder.write(batch.slice(start, start + 1024).map((event) => rows.from(event)));
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

  async #encoder(settings: EncoderSettings): Promise<Encoder> {
    return this.#options.encoder === 'duckdb' ? DuckdbEncoder.open(settings) : new ParquetjsEncoder(settings);
  }

  async #commit(
    window: AppendWindow,
    state: UnitState,
    attempt: AttemptName,
    encoded: Encoded,
  ): Promise<Receipt> {
    const { unit } = window;
    const paths = encoded.files.map(({ tenant, date }, part) =>
      dataPath(attempt, tenantSegment(tenant, sha256), date, part),
    );
    await this.#context.failpoint('parquet:before-upload');
    if (paths.length > 0) await recordAttempt(this.#store, unit, attempt, paths);
    try {
      await this.#upload(unit, encoded.files, paths);
      await this.#context.failpoint('parquet:before-manifest');
    } catch (error) {
      // No manifest was tried, so nothing can ever name these objects. The attempt's record stays: an upload of
      // unknown outcome may still arrive, and the next sweep gets it.
      await this.#store.delete(paths.map((path) => `${tableFolder(unit)}/${path}`)).catch(() => {});
      state.swept = false;
      throw error;
    }
    const manifest = newManifest(window, {
      nonce: attempt.nonce,
      encoder: this.#options.encoder,
      shape: encoded.shape,
      ...historyWith(state.latest, this.#options.encoder, encoded.shapes),
      fields: encoded.fields,
      rows: encoded.rows,
      bytes: encoded.files.reduce((sum, { bytes }) => sum + bytes, 0),
      contentHash: encoded.contentHash,
      files: encoded.files.map(({ rows, bytes, tenant, date }, part) => ({
        path: paths[part]!,
        rows,
        bytes,
        tenant: tenant ?? null,
        date,
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
    await this.#context.failpoint('parquet:after-manifest');
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

  async #upload(unit: string, files: readonly EncodedFile[], paths: readonly string[]): Promise<void> {
    let next = 0;
    const worker = async (): Promise<void> => {
      while (next < files.length) {
        const part = next;
        next += 1;
        await this.#store.putFile(`${tableFolder(unit)}/${paths[part]}`, files[part]!.localPath);
        await rm(files[part]!.localPath, { force: true });
      }
    };
    const results = await Promise.allSettled(Array.from({ length: uploads }, worker));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
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
    const columns = storedColumns(shape, state.latest!.fields);
    const base = `${this.#store.readableUrl}/${tableFolder(state.unit)}/`;
    const sql = latestSqlScript(base, state.unit, {
      columns,
      keyColumns: shape.keyColumns,
      uniform: state.latest!.uniform,
      reshaped: state.latest!.reshaped,
    });
    if (sql === state.latestSql) return;
    try {
      await this.#store.put(latestSqlKey(state.unit), Buffer.from(sql));
      state.latestSql = sql;
    } catch {
      this.#context.log('warn', 'could not write _latest.sql', { unit: state.unit });
    }
  }
}
