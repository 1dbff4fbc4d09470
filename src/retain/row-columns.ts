/**
 * Columns over time: a Tombstone names them as they were when the row went, a destination hands the row over as it has it
 * now, and the source may have renamed, dropped or retyped some meanwhile. The registry has every shape in between.
 */
import type { ColumnShape, TableShape } from '../connector/shape.ts';
import { pairColumns } from '../connector/shape-versions.ts';
import type { Cell, Row } from '../connector/sink.ts';
import { type ContentHash, isRow } from './canonical-row.ts';
import type { SourceTable } from './source-table.ts';

/** A column that the hash covers. */
interface CoveredColumn {
  name: string;
  /** In rows of the destination; -1: it does not have the column. */
  at: number;
  /** Its name in the source now; null: it was dropped. */
  now: string | null;
  retyped: boolean;
}

/** How the columns of some Tombstones are to be read: by one version of the table's shape. */
interface Reading {
  columns: CoveredColumn[];
  /** Of those that the source still has: the name then and now. */
  kept: [then: string, now: string][];
  dropped: string[];
}

/** Why a row of a destination is not the one that was let go of, by column names. */
export interface ColumnsDiffer {
  /** That the hash covers, and that the destination has. */
  covered: string[];
  held: string[];
  /** Covered ones that the destination does not have, and those that changed since: any of these may be why. */
  missing: string[];
  renamed: string[];
  retyped: string[];
}

export interface VerifiedRow {
  /** By the column's name now; what was dropped is not among them. */
  cells: ReadonlyMap<string, Cell>;
  dropped: readonly string[];
}

export class RowColumns {
  readonly #versions: readonly TableShape[];
  readonly #source: TableShape;
  readonly #readings = new Map<string, { held: TableShape; readings: Reading[] }>();

  /** @param versions of the table's shape, oldest first */
  constructor(versions: readonly TableShape[], source: SourceTable) {
    this.#versions = versions.toReversed();
    this.#source = shapeOfSource(source);
  }

  /** The destination's shape with columns that it may still have, though the table does not. @param covered by Tombstones */
  widen(shape: TableShape, covered: ReadonlySet<string>): TableShape {
    const columns = [...shape.columns];
    for (const version of this.#versions) {
      const { dropped } = pairColumns(version, { ...shape, columns });
      for (const column of dropped) {
        if (!covered.has(column.name) || columns.some(({ name }) => name === column.name)) continue;
        columns.push({ ...column, key: false, nullable: true });
      }
    }
    return { ...shape, columns };
  }

  /** @returns null where it is not the row of the Tombstone, by any version of the table's shape */
  verify(shape: TableShape, row: Row, tombstone: ContentHash): VerifiedRow | null {
    for (const reading of this.#readingsOf(shape, tombstone.columns)) {
      const found = new Map<string, Cell>();
      for (const { name, at } of reading.columns) if (at >= 0) found.set(name, row[at]!);
      if (isRow(found, tombstone) !== true) continue;
      const cells = new Map<string, Cell>();
      for (const [then, now] of reading.kept) cells.set(now, found.get(then)!);
      return { cells, dropped: reading.dropped };
    }
    return null;
  }

  differ(shape: TableShape, { columns }: ContentHash): ColumnsDiffer {
    const reading = this.#readingsOf(shape, columns)[0]?.columns ?? [];
    return {
      covered: columns,
      held: shape.columns.map(({ name }) => name),
      missing: columns.filter((name) => !reading.some((each) => each.name === name && each.at >= 0)),
      renamed: reading
        .filter(({ name, now }) => now !== null && now !== name)
        .map(({ name, now }) => `${name} → ${now}`),
      retyped: reading.filter(({ retyped }) => retyped).map(({ name }) => name),
    };
  }

  /** One for each version that has the columns, the newest first. */
  #readingsOf(held: TableShape, covered: readonly string[]): Reading[] {
    const id = JSON.stringify(covered);
    const known = this.#readings.get(id);
    if (known?.held === held) return known.readings;
    const readings: Reading[] = [];
    const seen = new Set<string>();
    for (const version of this.#versions) {
      const columns = covered.map((name) => version.columns.find((column) => column.name === name));
      if (columns.some((column) => column === undefined)) continue;
      const there = new Map(pairColumns(version, held).kept);
      const now = new Map(pairColumns(version, this.#source).kept);
      const reading = (columns as ColumnShape[]).map((column): CoveredColumn => {
        const heldColumn = there.get(column);
        const sourceColumn = now.get(column);
        return {
          name: column.name,
          at: heldColumn ? held.columns.indexOf(heldColumn) : -1,
          now: sourceColumn?.name ?? null,
          retyped: heldColumn !== undefined && heldColumn.type !== column.type,
        };
      });
      const text = JSON.stringify(reading);
      if (seen.has(text)) continue;
      seen.add(text);
      readings.push({
        columns: reading,
        kept: reading.flatMap(({ name, now }) => (now === null ? [] : [[name, now]])),
        dropped: reading.flatMap(({ name, now }) => (now === null ? [name] : [])),
      });
    }
    this.#readings.set(id, { held, readings });
    return readings;
  }
}

function shapeOfSource({ schema, name, columns, key, oid }: SourceTable): TableShape {
  return {
    schema,
    name,
    oid,
    columns: columns.map(({ name, number, type }) => ({ name, number, type, key: false, nullable: true })),
    keyColumns: key.map((column) => columns.indexOf(column)),
    tenantColumn: null,
  };
}
