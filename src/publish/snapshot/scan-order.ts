/** In which order a table is scanned, and how much of it the next chunk reads. */
import type { SourceConfig } from '../../platform/resolved-config.ts';
import { Tuple } from '../../replicate/pgoutput.ts';
import { PhysicalPace, physicalQuery } from '../../replicate/snapshot/physical-order.ts';
import type { ChunkRead } from '../../replicate/snapshot/read-chunk.ts';
import { rangeQuery, type TableScan } from '../../replicate/snapshot/table-scan.ts';
import type { TableEncoder } from '../table-encoder.ts';

/** A range of the table, before it is read. */
export interface PlannedRange {
  query: string;
  /** @returns the cursor after it; null: it does not fit, and the next plan is of less */
  after(read: ChunkRead, encoder: TableEncoder): { next: string[] | null; last: boolean } | null;
}

export interface ScanOrder {
  /** For the log. */
  readonly name: 'on disk' | 'by key';
  /** In Progress, beside the cursor that is of this order. */
  readonly description: string;
  /** @param cursor null: from the start */
  plan(cursor: string[] | null): PlannedRange;
}

/** In place of a description: the order on disk did not do. */
export const byKey = 'by key';
const physicalMark = 'ctid';

/** @param description as Progress has it; null: the scan has not begun */
export function isPhysical(description: string | null): boolean {
  return description?.startsWith(`["${physicalMark}"`) ?? false;
}

/** @param described the order that the cursor is of, if any */
export function scanOrder(
  scan: TableScan,
  condition: string | null,
  source: SourceConfig,
  described: string | null,
): ScanOrder {
  const physical = new PhysicalOrder(scan, condition, source);
  const goesOn = described === physical.description;
  const mayBegin = scan.readsPhysically && (described === null || isPhysical(described));
  return goesOn || mayBegin ? physical : new KeyOrder(scan, condition, source);
}

/** The first chunk says how large rows are. */
const firstRows = 1000;

class KeyOrder implements ScanOrder {
  readonly name = 'by key';
  readonly description: string;
  readonly #scan: TableScan;
  readonly #condition: string | null;
  readonly #source: SourceConfig;
  /** Rows of the next range at most. */
  #limit: number;

  constructor(scan: TableScan, condition: string | null, source: SourceConfig) {
    const order = scan.key.map(({ name, type, collation }) => [name, type, collation]);
    this.description = JSON.stringify([scan.table.oid, order]);
    this.#scan = scan;
    this.#condition = condition;
    this.#source = source;
    this.#limit = Math.min(firstRows, source.snapshot.chunkRows);
  }

  plan(cursor: string[] | null): PlannedRange {
    const limit = this.#limit;
    const after: PlannedRange['after'] = ({ rows, cut }, encoder) => {
      if (rows.count > 0) this.#resize(rows.count, rows.bytes, limit);
      const last = !cut && rows.count < limit;
      if (rows.count === 0) return { next: cursor, last };
      const row = new Tuple();
      rows.read(rows.count - 1, row);
      return { next: encoder.keyTexts(row, null), last };
    };
    return { query: rangeQuery(this.#scan, cursor, this.#condition, limit), after };
  }

  /** As many rows as the bytes allow, going by the last range. @param limit of that range */
  #resize(rows: number, bytes: number, limit: number): void {
    const { chunkRows, chunkBytes } = this.#source.snapshot;
    const fitting = Math.floor((chunkBytes * rows) / Math.max(1, bytes));
    this.#limit = Math.max(1, Math.min(chunkRows, fitting, limit * 4));
  }
}

class PhysicalOrder implements ScanOrder {
  readonly name = 'on disk';
  readonly description: string;
  readonly #scan: TableScan;
  readonly #condition: string | null;
  readonly #source: SourceConfig;
  readonly #pace = new PhysicalPace();

  constructor(scan: TableScan, condition: string | null, source: SourceConfig) {
    this.description = JSON.stringify([physicalMark, scan.table.oid, scan.file]);
    this.#scan = scan;
    this.#condition = condition;
    this.#source = source;
  }

  plan(cursor: string[] | null): PlannedRange {
    const range = this.#pace.range(cursor?.[0] ?? null);
    const after: PlannedRange['after'] = ({ rows, cut, pages }) => {
      if (cut) {
        this.#pace.tooLarge();
        return null;
      }
      this.#pace.held(rows.count, rows.bytes, this.#source.snapshot);
      return { next: [range.to], last: range.pages >= pages };
    };
    return { query: physicalQuery(this.#scan, range, this.#condition), after };
  }
}
