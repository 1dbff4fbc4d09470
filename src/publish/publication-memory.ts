/** What is published, as the ledger remembers it: notices what somebody took out behind the reader's back. */

import type { ClientBase } from 'pg';
import { tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { SourceConfig } from '../platform/resolved-config.ts';
import type { CatalogueTable } from '../replicate/catalogue.ts';
import { type PublicationPlan, planPublications } from '../replicate/publication.ts';
import { type PublishedTables, publicationGap } from '../replicate/publication-gap.ts';
import { atOneMoment } from '../replicate/source.ts';
import type { SourceLedger } from './source-ledger.ts';

export interface PublicationMemory {
  client: ClientBase;
  ledger: SourceLedger;
  /** server_version_num */
  version: number;
}

export interface Planned {
  tables: CatalogueTable[];
  plans: PublicationPlan[];
  /** What was published when the reader last looked; null where it never did, or it was not compared. */
  published: PublishedTables | null;
}

/**
 * What is tracked, and how it is to be published: nothing of what was published may have been taken out. Tables and
 * publications are looked at in one moment, since of a migration that commits in between half would be seen. To be
 * called before publications are brought in line, which would hide a gap.
 * @param tracked reads the tables; null where they cannot be told at present
 * @param compare with what was published; not where nothing was streamed of it
 * @returns null where `tracked` does
 * @throws TidemarkError TM245, and what `tracked` throws
 */
export async function planWhole<T extends CatalogueTable[] | null>(
  { client, ledger, version }: PublicationMemory,
  source: SourceConfig,
  tracked: () => Promise<T>,
  compare = true,
): Promise<Planned | Extract<T, null>> {
  const remembered = compare ? await ledger.readPublished() : null;
  const published = remembered?.published ?? null;
  const seen = await atOneMoment(client, async () => {
    const tables = await tracked();
    if (!tables) return null;
    const plans = planPublications(source, tables, version);
    const gap = published && (await publicationGap(client, published, plans, version));
    return { tables, plans, gap };
  });
  if (!seen) return null as Extract<T, null>;
  const { tables, plans, gap } = seen;
  if (gap) await refuseGap(ledger, plans, { known: remembered!.gap, found: gap });
  return { tables, plans, published };
}

async function refuseGap(
  ledger: SourceLedger,
  plans: readonly PublicationPlan[],
  { known, found }: { known: Record<string, string> | null; found: Record<string, string> },
): Promise<void> {
  if (Object.keys(found).length > 0) await ledger.rememberGap(found);
  const wanted = new Set(plans.flatMap(({ tables }) => tables.map(({ table }) => tableName(table))));
  const gap = Object.entries({ ...known, ...found }).filter(([name]) => wanted.has(name));
  if (gap.length === 0) return;
  throw new TidemarkError('TM245', [...new Set(gap.map(([, what]) => what))].join('; '));
}
