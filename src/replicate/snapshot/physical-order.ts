/**
 * A table read in the order in which it lies on disk: ranges of row addresses (ctid), so that every page is read once.
 * In a key's order the rows of a table with random keys cost a page each.
 *
 * An address says nothing of the key, and an update moves its row: see table-snapshots.ts for what follows from that.
 */
import { columnList, scanReference, type TableScan } from './table-scan.ts';

/** Addresses are counted through: 2^16 to a page, of which pages use the first few. */
const placesPerPage = 2 ** 16;
/** Pages have at most 32 KiB, and an address takes 4 bytes of them. */
const usedPlaces = 2 ** 13;
/** The first range says how large rows are. */
const firstPages = 4;
/** 128 MiB of empty pages: a chunk holds a lock and a snapshot. */
const mostPages = 2 ** 14;
/** Rows differ: aimed at this share of what a chunk may hold, most of them fit. */
const aim = 0.8;

/** Half open. */
export interface PhysicalRange {
  from: string;
  to: string;
  /** Pages that it and all before it take. */
  pages: number;
}

/** How much of the table the next chunk reads. */
export class PhysicalPace {
  #places = firstPages * placesPerPage;

  /** @param from a cursor; null: the start of the table */
  range(from: string | null): PhysicalRange {
    const start = from === null ? 0 : placeOf(from);
    let end = start + this.#places;
    // Up to where a page begins, unless it is only some rows of one that fit.
    const lastPage = Math.floor(end / placesPerPage);
    if (this.#places >= placesPerPage) end = lastPage * placesPerPage;
    else if (end % placesPerPage >= usedPlaces) end = (lastPage + 1) * placesPerPage;
    return { from: addressOf(start), to: addressOf(end), pages: Math.floor(end / placesPerPage) };
  }

  /** After a range that fitted. */
  held(rows: number, bytes: number, most: { chunkRows: number; chunkBytes: number }): void {
    const fits = aim * Math.min(most.chunkRows / Math.max(1, rows), most.chunkBytes / Math.max(1, bytes));
    this.#resize(this.#places * Math.min(4, fits));
  }

  /** After a range that did not. */
  tooLarge(): void {
    this.#resize(this.#places > placesPerPage ? this.#places / 4 : Math.min(this.#places, 1024) / 4);
  }

  #resize(places: number): void {
    this.#places = Math.max(1, Math.min(mostPages * placesPerPage, Math.round(places)));
  }
}

function placeOf(address: string): number {
  const [page, offset] = address.slice(1, -1).split(',').map(Number);
  return page! * placesPerPage + offset!;
}

function addressOf(place: number): string {
  return `(${Math.floor(place / placesPerPage)},${place % placesPerPage})`;
}

/** In no order that anybody may count on. */
export function physicalQuery(
  scan: TableScan,
  { from, to }: PhysicalRange,
  condition: string | null,
): string {
  const where = condition ? ` and (${condition})` : '';
  return `select ${columnList(scan)} from ${scanReference(scan)} where ctid >= '${from}'::tid and ctid < '${to}'::tid${where}`;
}
