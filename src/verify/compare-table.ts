/**
 * One table at one Position: counts and sums by bucket in one pass over each side, then, only where buckets differ, a
 * second pass that finds the rows and a third over the source that names their keys.
 */
import type { Client } from 'pg';
import type { Position } from '../connector/position.ts';
import { type TableShape, tableName } from '../connector/shape.ts';
import type { Readable, Row } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { SourceConfig } from '../platform/resolved-config.ts';
import { abortable } from '../platform/wait.ts';
import type { CatalogueTable } from '../replicate/catalogue.ts';
import { BucketSums } from './bucket-sums.ts';
import { hintFor, uncomparedColumns } from './hints.ts';
import type { ParkedTables } from './parked-tables.ts';
import { protectedRows } from './protected-rows.ts';
import type { KeyDifference, TableReport, VerifyEvent } from './report.ts';
import { RowDifferences, selectRows } from './row-differences.ts';
import type { RowLayout } from './row-digest.ts';
import { countSourceRows, sourceRows } from './source-rows.ts';

export interface CompareContext {
  source: SourceConfig;
  /** In a transaction on the snapshot of `position`. */
  client: Client;
  /** Held at `position`. */
  sink: Readable;
  position: Position;
  /** The destination is bound to it: only its rows are compared. */
  tenant: string | null;
  limit: number;
  /** Rows of the source that the second pass may remember, about 200 bytes each. */
  memoryRows: number;
  signal: AbortSignal;
  onProgress(event: VerifyEvent): void;
}

/** So that progress is told of, not flooded with. */
const reportEveryMs = 1000;

/**
 * @param shape of the table's last published Change; null: none was ever published
 * @param quarantined rows of the table that the destination refused
 * @throws TidemarkError of the source (TM201, TM202) or of the sink; the signal's reason
 */
export async function compareTable(
  context: CompareContext,
  table: CatalogueTable,
  shape: TableShape | null,
  parked: ParkedTables[string] | null,
  quarantined = 0,
): Promise<TableReport> {
  const startedAt = performance.now();
  const report: TableReport = {
    table: tableName(table),
    status: 'equal',
    sourceRows: null,
    destinationRows: null,
    sourceHash: null,
    destinationHash: null,
    missing: 0,
    extra: 0,
    different: 0,
    countsExact: true,
    keys: [],
    quarantined,
    evicted: 0,
    hint: null,
    durationMs: 0,
  };
  if (parked) {
    report.status = 'parked';
    report.hint = `Parked at ${parked.position} (${parked.code}): ${parked.reason}. Its Changes since then wait in the parked topic.`;
  } else if (shape === null) {
    await compareUnpublished(context, table, report);
  } else {
    await compareRows(context, table, shape, report);
  }
  report.durationMs = Math.round(performance.now() - startedAt);
  return report;
}

async function compareUnpublished(
  { client, signal }: CompareContext,
  table: CatalogueTable,
  report: TableReport,
): Promise<void> {
  const rows = await abortable(countSourceRows(client, table), signal);
  report.sourceRows = rows;
  if (rows === 0) return;
  report.status = 'not-replicated';
  report.missing = rows;
  report.hint = `not replicated: ${rows} rows from before the slot`;
}

async function compareRows(
  context: CompareContext,
  table: CatalogueTable,
  published: TableShape,
  report: TableReport,
): Promise<void> {
  const uncompared = uncomparedColumns(context.source, table, published);
  const shape = withoutColumns(published, uncompared.gone);
  const scan = new TableScan(context, table, shape);
  const layout: RowLayout = { all: shape.columns.map((_, i) => i), key: shape.keyColumns };
  const source = new BucketSums(layout);
  const destination = new BucketSums(layout);
  await scan.both(
    1,
    (row) => source.add(row),
    (row) => destination.add(row),
  );
  report.sourceRows = source.rows;
  report.destinationRows = destination.rows;
  report.evicted = scan.evicted;
  report.sourceHash = source.hex;
  report.destinationHash = destination.hex;
  const differing = source.differing(destination);
  if (differing.length > 0) {
    report.status = 'different';
    const selection = selectRows(source, differing, context.memoryRows);
    const names = shape.columns.map(({ name }) => name);
    const rows = new RowDifferences(layout, names, selection, context.limit);
    // One after the other: a destination's row means something only against all of the source's.
    await scan.source(2, (row) => rows.addSource(row));
    await scan.destination(2, (row) => rows.addDestination(row));
    const search = rows.startKeys();
    if (search.open) await scan.source(3, (row) => search.addSource(row));
    const { missing, extra, different } = rows;
    const keys: KeyDifference[] = search.keys;
    Object.assign(report, { missing, extra, different, keys, countsExact: selection.whole });
  }
  const carried = shape.columns.filter((column) => column.carried).map(({ name }) => name);
  report.hint = hintFor(table, report, uncompared, carried);
}

/** Both sides are read by this, so a column that only one has takes no part. */
function withoutColumns(shape: TableShape, gone: readonly string[]): TableShape {
  if (gone.length === 0) return shape;
  const kept = shape.columns.flatMap((column, i) => (gone.includes(column.name) ? [] : [i]));
  const place = (i: number) => kept.indexOf(i);
  // A key without one of its columns tells nothing apart: the rows are then compared as a multiset.
  const wholeKey = shape.keyColumns.every((i) => kept.includes(i));
  return {
    ...shape,
    columns: kept.map((i) => shape.columns[i]!),
    keyColumns: wholeKey ? shape.keyColumns.map(place) : [],
    // Hashes are salted with it.
    tenantColumn:
      shape.tenantColumn !== null && kept.includes(shape.tenantColumn) ? place(shape.tenantColumn) : null,
  };
}

/** Passes over the two sides of a table, with progress. */
class TableScan {
  readonly #context: CompareContext;
  readonly #table: CatalogueTable;
  readonly #shape: TableShape;
  #reportedAt = performance.now();
  #sourceRows = 0;
  #destinationRows = 0;
  /** As the last pass over the destination found them. */
  evicted = 0;

  constructor(context: CompareContext, table: CatalogueTable, shape: TableShape) {
    this.#context = context;
    this.#table = table;
    this.#shape = shape;
  }

  async source(pass: 1 | 2 | 3, take: (row: Row) => void, signal = this.#context.signal): Promise<void> {
    this.#sourceRows = 0;
    const { client, source } = this.#context;
    const rows = protectedRows(sourceRows(client, this.#table, this.#shape), this.#shape, source.hashKey);
    await scanRows(this.#ofTenant(rows), signal, take, (count) => {
      this.#sourceRows += count;
      this.#report(pass);
    });
  }

  async destination(pass: 1 | 2 | 3, take: (row: Row) => void, signal = this.#context.signal): Promise<void> {
    this.#destinationRows = 0;
    this.evicted = 0;
    const { sink, position } = this.#context;
    const rows = sink.readTable(this.#shape, position, (retired) => {
      this.evicted += retired.length;
    });
    await scanRows(rows, signal, take, (count) => {
      this.#destinationRows += count;
      this.#report(pass);
    });
  }

  /** @throws TidemarkError TM413 where the table does not say whose its rows are */
  async *#ofTenant(batches: AsyncIterable<Row[]>): AsyncIterable<Row[]> {
    const { tenant } = this.#context;
    const { tenantColumn } = this.#shape;
    if (tenant !== null && tenantColumn === null)
      throw new TidemarkError(
        'TM413',
        `${tableName(this.#shape)} has no tenant column in its replica identity`,
      );
    for await (const rows of batches)
      yield tenant === null ? rows : rows.filter((row) => row[tenantColumn!] === tenant);
  }

  /** At the same time; when one side fails, the other stops. */
  async both(pass: 1, source: (row: Row) => void, destination: (row: Row) => void): Promise<void> {
    const failed = new AbortController();
    const signal = AbortSignal.any([this.#context.signal, failed.signal]);
    const stopOther = (error: unknown) => {
      failed.abort(error);
      throw error;
    };
    await Promise.all([
      this.source(pass, source, signal).catch(stopOther),
      this.destination(pass, destination, signal).catch(stopOther),
    ]);
  }

  #report(pass: 1 | 2 | 3): void {
    const now = performance.now();
    if (now - this.#reportedAt < reportEveryMs) return;
    this.#reportedAt = now;
    this.#context.onProgress({
      phase: 'compare',
      table: tableName(this.#table),
      pass,
      sourceRows: this.#sourceRows,
      destinationRows: this.#destinationRows,
    });
  }
}

async function scanRows(
  rows: AsyncIterable<Row[]>,
  signal: AbortSignal,
  take: (row: Row) => void,
  counted: (rows: number) => void,
): Promise<void> {
  const iterator = rows[Symbol.asyncIterator]();
  try {
    for (;;) {
      const { value, done } = await abortable(iterator.next(), signal);
      if (done) return;
      for (const row of value) take(row);
      counted(value.length);
    }
  } catch (error) {
    // Not awaited: it waits for a batch that may never come. Whoever owns the connection ends it.
    iterator.return?.().catch(() => {});
    throw error;
  }
}
