/** A Window as the destination names its tables and types. */
import type { TableShape } from '../../../src/connector/shape.ts';
import type { MergeTable, MergeWindow, Sweep } from '../../../src/connector/sink.ts';
import { timestampText } from './house-columns.ts';
import type { Placement } from './placement.ts';
import { hasCanonicalText, quoteTable, quoteText, typeSchema } from './quote.ts';

export interface PlacedWindow {
  window: MergeWindow;
  tables: readonly MergeTable[];
  sweeps: readonly Sweep[];
  /** Its commit time as a literal. */
  now: string;
}

export function placeWindow(window: MergeWindow, placement: Placement): PlacedWindow {
  const place = <T extends { shape: TableShape }>(of: T): T => ({ ...of, shape: placement.place(of.shape) });
  return {
    window,
    tables: window.tables.map(place),
    sweeps: window.sweeps.map(place),
    now: `${quoteText(timestampText(window.commitTimeUs))}::timestamp with time zone`,
  };
}

/** Of each table the shape that comes first. */
export function firstShapes(tables: readonly MergeTable[]): TableShape[] {
  const first = new Map<string, TableShape>();
  for (const { shape } of tables) if (!first.has(quoteTable(shape))) first.set(quoteTable(shape), shape);
  return [...first.values()];
}

/** Schemas of key types that bring their own equality (citext): found by operator only through the search path. */
export function keySchemas(tables: readonly MergeTable[]): string[] {
  const schemas = new Set<string>();
  for (const { shape } of tables) {
    for (const i of shape.keyColumns) {
      const column = shape.columns[i]!;
      const schema = column.enum || hasCanonicalText(column) ? null : typeSchema(column.base ?? column.type);
      if (schema !== null) schemas.add(schema);
    }
  }
  return [...schemas];
}
