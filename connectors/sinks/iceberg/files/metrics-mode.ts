/**
 * Which statistics of a column go into the manifest (table properties `write.metadata.metrics.*`, as other writers of
 * Iceberg read them). They are kept for every file of the table, so a wide table has them for its first columns only.
 */
import type { NestedField } from '../spec/schema.ts';

export type MetricsMode = { kind: 'none' | 'counts' | 'full' } | { kind: 'truncate'; width: number };

const prefix = 'write.metadata.metrics.';
const columnsByDefault = 100;
const standard: MetricsMode = { kind: 'truncate', width: 16 };

/**
 * By field id; fields of nested types have none.
 * @param needed ids of columns by which files are found (key, partition, order): they have bounds whatever the rest has
 */
export function metricsModes(
  fields: readonly NestedField[],
  properties: Readonly<Record<string, string>>,
  needed: ReadonlySet<number>,
): Map<number, MetricsMode> {
  const everywhere = parseMode(properties[`${prefix}default`]);
  const limit = Number(properties[`${prefix}max-inferred-column-defaults`] ?? columnsByDefault);
  const modes = new Map<number, MetricsMode>();
  for (const [index, { id, name, type }] of fields.entries()) {
    if (typeof type !== 'string') continue;
    const otherwise = everywhere ?? (index < limit ? standard : { kind: 'none' });
    const own = Object.hasOwn(properties, `${prefix}column.${name}`)
      ? parseMode(properties[`${prefix}column.${name}`])
      : null;
    const mode = own ?? otherwise;
    const withoutBounds = mode.kind === 'none' || mode.kind === 'counts';
    modes.set(id, needed.has(id) && withoutBounds ? standard : mode);
  }
  return modes;
}

/** Null where it says nothing that is known. */
function parseMode(text: string | undefined): MetricsMode | null {
  if (text === undefined) return null;
  const mode = text.trim().toLowerCase();
  if (mode === 'none' || mode === 'counts' || mode === 'full') return { kind: mode };
  const width = Number(/^truncate\((\d+)\)$/.exec(mode)?.[1] ?? 0);
  return width > 0 ? { kind: 'truncate', width } : null;
}
