/** What is published, as the ledger remembers it: notices what somebody took out behind the reader's back. */

import type { ClientBase } from 'pg';
import { tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { PublicationPlan } from '../replicate/publication.ts';
import { publicationGap } from '../replicate/publication-gap.ts';
import type { SourceLedger } from './source-ledger.ts';

export interface PublicationMemory {
  client: ClientBase;
  ledger: SourceLedger;
  /** server_version_num */
  version: number;
}

/**
 * To be called before publications are brought in line, which would hide it.
 * @throws TidemarkError TM245
 */
export async function requireWhole(
  { client, ledger, version }: PublicationMemory,
  plans: readonly PublicationPlan[],
): Promise<void> {
  const { published, gap: known } = await ledger.readPublished();
  if (!published) return;
  const found = await publicationGap(client, published, plans, version);
  if (Object.keys(found).length > 0) await ledger.rememberGap(found);
  const wanted = new Set(plans.flatMap(({ tables }) => tables.map(({ table }) => tableName(table))));
  const gap = Object.entries({ ...known, ...found }).filter(([name]) => wanted.has(name));
  if (gap.length === 0) return;
  throw new TidemarkError('TM245', [...new Set(gap.map(([, what]) => what))].join('; '));
}
