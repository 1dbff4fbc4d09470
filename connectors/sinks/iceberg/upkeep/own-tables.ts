/** The tables that a destination writes, found in the catalog. */
import { NoSuchNamespace } from '../catalog/failures.ts';
import type { Lake, OpenTable } from '../lake.ts';
import { namespacePatterns } from '../names.ts';
import { type Owner, propertyNames } from '../progress/properties.ts';

export interface FoundTables {
  own: OpenTable[];
  /** Locations of tables of the same namespaces that are somebody else's. */
  others: string[];
}

export async function findTables(lake: Lake, namespace: string, owner: Owner): Promise<FoundTables> {
  const found: FoundTables = { own: [], others: [] };
  for (const each of await namespacesOf(lake, namespace)) {
    const identifiers = await lake.catalog.listTables(each).catch((error) => {
      if (error instanceof NoSuchNamespace) return [];
      throw error;
    });
    for (const identifier of identifiers) {
      const loaded = await lake.catalog.loadTable(identifier);
      if (loaded === null) continue;
      if (isOwn(loaded.metadata.properties, owner)) found.own.push(await lake.opened(loaded));
      else found.others.push(loaded.metadata.location);
    }
  }
  return found;
}

function isOwn(properties: unknown, { sourceId, destination }: Owner): boolean {
  const known = (properties ?? {}) as Record<string, unknown>;
  return known[propertyNames.source] === sourceId && known[propertyNames.destination] === destination;
}

async function namespacesOf(lake: Lake, namespace: string): Promise<string[][]> {
  let known: string[][] = [[]];
  for (const pattern of namespacePatterns(namespace)) {
    const next: string[][] = [];
    for (const parent of known) {
      if (typeof pattern === 'string') {
        next.push([...parent, pattern]);
        continue;
      }
      const below = await lake.catalog.listNamespaces(parent.length === 0 ? undefined : parent);
      for (const each of below) if (pattern.test(each.at(-1)!)) next.push([...each]);
    }
    known = next;
  }
  return known;
}
