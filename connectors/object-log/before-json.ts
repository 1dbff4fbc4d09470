/** The column `_before`. */

import type { Cell } from '../../src/connector/sink.ts';
import type { ChangeRow } from './change-row.ts';
import type { StoredColumn } from './fields.ts';

/** JSON object: field to Postgres text or null; of the end of a snapshot, `since` and its Position. */
export function beforeJson(columns: readonly StoredColumn[], { before, since }: ChangeRow): string | null {
  if (since !== null) return JSON.stringify({ since });
  if (before === null) return null;
  const object = Object.create(null) as Record<string, Cell>;
  for (const [index, { field }] of columns.entries()) object[field] = before[index] ?? null;
  return JSON.stringify(object);
}
