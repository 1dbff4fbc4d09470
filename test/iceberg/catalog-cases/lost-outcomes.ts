/** Commits whose outcome got lost on the way, on both servers. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { CommitConflict, CommitStateUnknown } from '../../../connectors/sinks/iceberg/catalog/failures.ts';
import { openRestCatalog } from '../../../connectors/sinks/iceberg/catalog/open-catalog.ts';
import type { RestCatalog } from '../../../connectors/sinks/iceberg/catalog/rest-catalog.ts';
import { settleCommit } from '../../../connectors/sinks/iceberg/catalog/settle-commit.ts';
import { type CatalogFront, startCatalogFront } from '../catalog-front.ts';
import { apache, append, failure, seaweed, settings, snapshotsOf, twoTables } from './world.ts';

export function lostOutcomes(): void {
  describe.each([apache, seaweed])('$name', (server) => {
    let catalog: RestCatalog;
    let front: CatalogFront;
    /** Through the front. */
    let behind: RestCatalog;

    beforeAll(async () => {
      catalog = await openRestCatalog(settings(server.uri(), server.changes()));
    });
    beforeEach(async () => {
      front = await startCatalogFront(server.uri());
      behind = await openRestCatalog(settings(front.uri, server.changes()));
      front.seen.length = 0;
    });
    afterEach(async () => {
      await behind.close();
      front.stop();
    });
    afterAll(() => catalog.close());

    describe('a commit whose outcome got lost', () => {
      const commitPath = /^POST .*(\/tables\/\w+|\/transactions\/commit)$/;
      const sent = () => front.seen.filter(({ method, url }) => commitPath.test(`${method} ${url}`)).length;

      it.each([
        ['the connection broke after the catalog had it', { kind: 'forward and break' }],
        [
          'a proxy answered 502 after the catalog had it',
          { kind: 'forward and answer', answer: { status: 502 } },
        ],
        [
          'a proxy answered 503 after the catalog had it',
          { kind: 'forward and answer', answer: { status: 503 } },
        ],
        [
          'the answer was cut',
          { kind: 'forward and answer', answer: { status: 200, body: '{"metadata": {' } },
        ],
      ] as const)('is found in the table and not sent again: %s', async (_case, incident) => {
        const [one, other] = await twoTables(catalog);
        const alone = append(one, null, 1);
        front.expect(commitPath, incident);
        expect(await failure(behind.commit([alone]))).toBeInstanceOf(CommitStateUnknown);
        expect(await snapshotsOf(catalog, one)).toEqual([alone.id]);

        front.seen.length = 0;
        const together = [append(one, alone.id, 2), append(other, null, 1)] as const;
        front.expect(commitPath, incident);
        const states = await settleCommit(behind, together, { pauseMs: 10 });
        expect(sent()).toBe(1);
        expect(states.map((state) => state?.identifier.name)).toEqual(['one', 'other']);
        expect(await snapshotsOf(catalog, one)).toEqual([alone.id, together[0].id]);
        expect(await snapshotsOf(catalog, other)).toEqual([together[1].id]);
      });

      it('is sent again where the catalog never had it', async () => {
        const [one, other] = await twoTables(catalog);
        const together = [append(one, null, 1), append(other, null, 1)] as const;
        front.expect(commitPath, { kind: 'break' }, { kind: 'answer', answer: { status: 500 } });
        await settleCommit(behind, together, { pauseMs: 10 });
        expect(sent()).toBe(3);
        expect(await snapshotsOf(catalog, one)).toEqual([together[0].id]);
        expect(await snapshotsOf(catalog, other)).toEqual([together[1].id]);
      });

      it.each([5, 60, 150])('is made once where it arrives %i ms late', async (afterMs) => {
        const [one] = await twoTables(catalog);
        const late = append(one, null, 1);
        front.expect(commitPath, { kind: 'break and forward later', afterMs });
        const [state] = await settleCommit(behind, [late], { pauseMs: 60 });
        await front.settled();
        expect(state!.identifier).toEqual(one);
        expect(await snapshotsOf(catalog, one)).toEqual([late.id]);
      });

      it('is a conflict where somebody else was faster', async () => {
        const [one] = await twoTables(catalog);
        const mine = append(one, null, 1);
        const theirs = append(one, null, 1);
        front.expect(commitPath, { kind: 'break' });
        const settling = failure(settleCommit(behind, [mine], { pauseMs: 500 }));
        await catalog.commit([theirs]);
        expect(await settling).toBeInstanceOf(CommitConflict);
        expect(await snapshotsOf(catalog, one)).toEqual([theirs.id]);
      });

      it('stays unknown where the catalog does not come back', async () => {
        const [one] = await twoTables(catalog);
        front.expect(commitPath, { kind: 'forward and break' });
        front.expect(
          /^GET .*\/tables\/one$/,
          ...Array.from({ length: 20 }, () => ({ kind: 'break' as const })),
        );
        const result = await failure(settleCommit(behind, [append(one, null, 1)], { pauseMs: 10 }));
        expect(result).toBeInstanceOf(CommitStateUnknown);
        expect(result).toMatchObject({ code: 'TM401', retry: 'transient' });
      });
    });
  });
}
