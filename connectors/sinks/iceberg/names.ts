/** What tables are called in the catalog. */
import { createHash } from 'node:crypto';
import type { TableId } from '../../../src/connector/shape.ts';
import type { TableIdentifier } from './catalog/catalog.ts';
import { keySegment } from './file-store.ts';
import type { Owner } from './progress/properties.ts';

/**
 * Schema and table by their own names as far as these are letters, digits and `_`; other characters are written as `-` and
 * two hexadecimal digits a byte, because catalogs make folders of names.
 */
export function identifierOf(namespace: string, { schema, name }: TableId): TableIdentifier {
  return { namespace: levels(namespace, schema), name: part(name) };
}

/** The table that says what the destination holds. */
export function progressIdentifier(namespace: string, { sourceId, destination }: Owner): TableIdentifier {
  const hash = createHash('sha256')
    .update(JSON.stringify([sourceId, destination]))
    .digest('hex');
  return { namespace: levels(namespace, 'tidemark'), name: `tidemark_progress_${hash.slice(0, 16)}` };
}

/** Of each level of the namespaces that tables may be in: its name, or what names of it look like. */
export function namespacePatterns(namespace: string): (string | RegExp)[] {
  return namespace.split('.').map((level) => {
    if (!level.includes('{schema}')) return level;
    const literal = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
    return new RegExp(`^${level.split('{schema}').map(literal).join('.+')}$`, 's');
  });
}

function levels(namespace: string, schema: string): string[] {
  return namespace.split('.').map((level) => level.replaceAll('{schema}', part(schema)));
}

function part(name: string): string {
  // A dot would be another level for many readers.
  return keySegment(name).replaceAll('.', '-2e');
}
