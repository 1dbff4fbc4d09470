/** Notices what somebody took out of the publications behind the reader's back. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClientBase } from 'pg';
import { TidemarkError } from '../platform/errors.ts';
import type { SourceConfig } from '../platform/resolved-config.ts';
import { trackedTables } from '../replicate/catalogue.ts';
import { type PublicationPlan, planPublications } from '../replicate/publication.ts';
import { publicationGap } from '../replicate/publication-gap.ts';
import type { SourceLedger } from './source-ledger.ts';

export interface PublicationWatch {
  client: ClientBase;
  source: SourceConfig;
  ledger: SourceLedger;
  /** server_version_num */
  version: number;
}

/**
 * To be called before publications are brought in line, which would hide it.
 * @throws TidemarkError TM245
 */
export async function requireWhole(
  { client, ledger, version }: PublicationWatch,
  plans: readonly PublicationPlan[],
): Promise<void> {
  const { published, gap: known } = await ledger.readPublished();
  if (!published) return;
  const found = await publicationGap(client, published, plans, version);
  if (Object.keys(found).length > 0) await ledger.rememberGap(found);
  const wanted = new Set(
    plans.flatMap(({ tables }) => tables.map(({ table }) => `${table.schema}.${table.name}`)),
  );
  const gap = Object.entries({ ...known, ...found }).filter(([name]) => wanted.has(name));
  if (gap.length === 0) return;
  throw new TidemarkError('TM245', [...new Set(gap.map(([, what]) => what))].join('; '));
}

/** Rejects with TM245 alone: of a source or ledger that does not answer others tell. Ends with the signal. */
export async function watchPublications(
  watch: PublicationWatch,
  intervalMs: number,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    await sleep(intervalMs, undefined, { signal }).catch(() => {});
    if (signal.aborted) return;
    try {
      const tables = await trackedTables(watch.client, watch.source);
      await requireWhole(watch, planPublications(watch.source, tables, watch.version));
    } catch (error) {
      if (error instanceof TidemarkError && error.code === 'TM245') throw error;
    }
  }
}
