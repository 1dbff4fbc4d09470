/** A catalog that is busy, slow, broken or away. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { TableIdentifier } from '../../../connectors/sinks/iceberg/catalog/catalog.ts';
import { CommitStateUnknown } from '../../../connectors/sinks/iceberg/catalog/failures.ts';
import { openRestCatalog } from '../../../connectors/sinks/iceberg/catalog/open-catalog.ts';
import type { RestCatalog } from '../../../connectors/sinks/iceberg/catalog/rest-catalog.ts';
import { type CatalogFront, startCatalogFront } from '../catalog-front.ts';
import { apache, failure, settings, twoTables } from './world.ts';

export function patience(): void {
  describe('patience', () => {
    let front: CatalogFront;
    let catalog: RestCatalog;
    let table: TableIdentifier;

    beforeAll(async () => {
      front = await startCatalogFront(apache.uri());
      catalog = await openRestCatalog(settings(front.uri, { timeoutMs: 800 }));
      [table] = await twoTables(catalog);
    });
    beforeEach(() => {
      front.seen.length = 0;
    });
    afterAll(async () => {
      await catalog.close();
      front.stop();
    });
    const busy = (status: number, seconds: string) => ({
      kind: 'answer' as const,
      answer: { status, headers: { 'retry-after': seconds } },
    });

    it.each([429, 503])('waits as long as a %i asks for', async (status) => {
      front.expect(/^GET/, busy(status, '1'));
      const begun = performance.now();
      expect(await catalog.loadTable(table)).not.toBeNull();
      expect(performance.now() - begun).toBeGreaterThan(990);
      expect(front.seen).toHaveLength(2);
    });

    it('sends a commit again that was refused for its rate', async () => {
      front.expect(/^POST/, busy(429, '1'));
      const commit = {
        identifier: table,
        requirements: [],
        updates: [{ action: 'set-properties', updates: { a: 'b' } }],
      };
      const [state] = await catalog.commit([commit]);
      expect(state!.metadata.properties).toMatchObject({ a: 'b' });
    });

    it('hands a long wait on to whoever delivers', async () => {
      front.expect(/^GET/, busy(429, '120'));
      expect(await failure(catalog.loadTable(table))).toMatchObject({
        code: 'TM401',
        retry: 'transient',
        retryAfterMs: 120_000,
      });
      expect(front.seen).toHaveLength(1);
    });

    it('gives up on a server that keeps failing', async () => {
      front.expect(/^GET/, ...Array.from({ length: 4 }, () => busy(500, '')));
      expect(await failure(catalog.loadTable(table))).toMatchObject({ code: 'TM401', retry: 'transient' });
      expect(front.seen).toHaveLength(4);
    });

    it('waits no longer than its timeout, and of a commit it then knows nothing', async () => {
      front.expect(/^GET/, { kind: 'hold' });
      expect(await catalog.loadTable(table)).not.toBeNull();
      expect(front.seen).toHaveLength(2);
      front.expect(/^POST/, { kind: 'hold' });
      const result = await failure(catalog.commit([{ identifier: table, requirements: [], updates: [] }]));
      expect(result).toBeInstanceOf(CommitStateUnknown);
      expect(result!.message).toContain('timeout of 800 ms');
    });

    it('knows that a commit cannot have been made where nothing listens', async () => {
      const gone = await startCatalogFront(apache.uri());
      const unreachable = await openRestCatalog(settings(gone.uri));
      gone.stop();
      // The connection that was kept breaks with the first request, which may have arrived for all that is known.
      await failure(unreachable.commit([{ identifier: table, requirements: [], updates: [] }]));
      const result = await failure(
        unreachable.commit([{ identifier: table, requirements: [], updates: [] }]),
      );
      expect(result).toMatchObject({ code: 'TM401' });
      expect(result).not.toBeInstanceOf(CommitStateUnknown);
      await unreachable.close();
    });
  });
}
