/**
 * A policy's read-back: beyond the receipts, rows are read from the destinations that prove them and compared with the
 * source's, all of them or a sample, before any goes. Of each only a digest is kept.
 */
import { createHash } from 'node:crypto';
import { tableName } from '../connector/shape.ts';
import type { Cell } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import { canonicalRow } from './canonical-row.ts';
import type { DeliveryMark } from './delivery-proof.ts';
import type { EvictableTable } from './evictable-table.ts';
import type { MarkedRow } from './mark-rows.ts';
import { type HolderOptions, readHeldRows } from './read-holder.ts';

/** Rows that a sample has. */
const sampleRows = 200;

/** Of a row's canonical form over the columns that destinations have. */
export function digestOf(row: ReadonlyMap<string, Cell>, columns: readonly string[]): string {
  const covered = new Map(columns.map((name) => [name, row.get(name) ?? null]));
  return createHash('sha256').update(canonicalRow(covered)).digest('base64');
}

export class ReadBack {
  /** Destination to key to digest. */
  readonly #digests = new Map<string, Map<string, string>>();
  /** Keys that were looked for. */
  readonly #asked: ReadonlySet<string>;

  private constructor(asked: ReadonlySet<string>) {
    this.#asked = asked;
  }

  /** @throws TidemarkError TM508; what a sink throws */
  static async of(
    table: EvictableTable,
    rows: readonly MarkedRow[],
    holders: readonly DeliveryMark[],
    options: HolderOptions,
  ): Promise<ReadBack> {
    const chosen = table.policy.readBack === 'full' ? rows : sampled(rows);
    const asked = new Set(chosen.map(({ key }) => key));
    const back = new ReadBack(asked);
    for (const holder of holders) {
      const digests = new Map<string, string>();
      await readHeldRows(options, holder, table, asked, (key, row) =>
        digests.set(key, digestOf(row, table.kept)),
      );
      back.#digests.set(holder.destination, digests);
    }
    return back;
  }

  /** The destination that has another row, or none, though it was asked; null: none. */
  differing(
    key: string,
    digest: string,
    holders: readonly Pick<DeliveryMark, 'destination'>[],
  ): string | null {
    if (!this.#asked.has(key)) return null;
    const found = holders.find(({ destination }) => this.#digests.get(destination)?.get(key) !== digest);
    return found?.destination ?? null;
  }
}

function sampled(rows: readonly MarkedRow[]): readonly MarkedRow[] {
  if (rows.length <= sampleRows) return rows;
  const step = rows.length / sampleRows;
  const start = Math.random() * step;
  return Array.from({ length: sampleRows }, (_, i) => rows[Math.floor(start + i * step)]!);
}

/** Nothing of the table goes then: if one row is not as it was delivered, who knows of the others. */
export function differs(table: EvictableTable, destination: string): TidemarkError {
  return new TidemarkError(
    'TM508',
    `${tableName(table)} is not evicted: ${destination} hands back a row otherwise than the source has it, or not at all`,
    {
      remedy: `tidemark verify ${destination} shows which rows differ; tidemark snapshot start ${tableName(table)} brings them again.`,
    },
  );
}
