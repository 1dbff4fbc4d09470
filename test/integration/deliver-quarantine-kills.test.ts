/**
 * Quarantine in a process that is killed at every place it writes, on random histories. TIDEMARK_SEED replays one; the
 * seed is in every failure.
 */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { QuarantineLedger } from '../../src/deliver/quarantine/quarantine-ledger.ts';
import { type Random, random } from '../unit/deliver-random.ts';
import { type DeliveryProcess, type Harness, spawnDelivery, startHarness, until } from './deliver-harness.ts';
import { MemoryStore } from './deliver-memory-sink.ts';
import { shape } from './deliver-records.ts';
import type { FakeSource, TableChange } from './deliver-source.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(async () => {
  await harness?.stop();
});

const roundCount = 10;
/** Noted in the ledger; kept whole; merged without them; recorded. */
const points = ['after-withhold', 'after-dead-letters', 'mid-merge', 'after-merge', 'after-ledger'];

function change(r: Random, source: FakeSource, round: number): TableChange[] {
  const live = new Set([...source.tables.get('notes')!.records.rows.values()].map(([id]) => id!));
  const id = String(r.integer(6));
  const title = r.pick(['good', 'bad', 'fine']);
  const body = `body ${round}`;
  const dice = r.next();
  const made = (each: TableChange['change']) => [{ table: 'notes', change: each }];
  if (r.next() < 0.03) return made({ op: 't' });
  if (!live.has(id)) return made({ op: 'c', row: [id, title, body] });
  if (dice < 0.12) return made({ op: 'd', row: [id, null, null] });
  if (dice < 0.3) {
    const next = String(r.integer(6));
    return live.has(next) ? [] : made({ op: 'k', oldKey: id, row: [next, title, undefined] });
  }
  return made({ op: 'u', row: [id, title, dice < 0.8 ? undefined : body] });
}

test('whatever it dies of, each row is listed once, and replays bring what the source has', async () => {
  const r = random();
  const source = harness.source();
  await source.open([shape('notes', ['id', 'title', 'body'])]);
  const config = harness.config(source, [{}]);
  const storeFile = join(harness.directory, `${source.prefix}.json`);
  const ledger = new QuarantineLedger(harness.pool);
  const listed = () => ledger.list(source.sourceId, { destination: 'warehouse', all: false });
  const delivered = async () => {
    const { rows } = await harness.pool.query('select mark from tidemark.units where source_id = $1', [
      source.sourceId,
    ]);
    return rows[0]?.mark === source.position;
  };
  const failure = async () => {
    const { rows } = await harness.pool.query(
      'select error_code, error from tidemark.units where source_id = $1',
      [source.sourceId],
    );
    return JSON.stringify({
      ...rows[0],
      entries: (await listed()).map(({ state, reason }) => [state, reason]),
    });
  };
  const ends = async (child: DeliveryProcess, context: string, done: () => Promise<boolean>) => {
    let ended = false;
    void child.exited.then(() => {
      ended = true;
    });
    const started = () => child.lines.some(({ event }) => event === 'started');
    await until('the process ends or is done', async () => ended || (started() && (await done()))).catch(
      async (error: Error) => {
        child.child.kill('SIGKILL');
        throw new Error(`${context}: ${error.message}: ${await failure()}`);
      },
    );
    if (!ended) child.child.kill('SIGTERM');
    return child.exited;
  };
  let deaths = 0;
  const rounds: string[] = [];
  try {
    for (let round = 0; round < roundCount; round++) {
      const context = `seed ${r.seed}, round ${round}`;
      for (let left = 1 + r.integer(3); left > 0; left--) {
        // Each depends on the rows that the one before left.
        const changes = (function* () {
          for (let n = 1 + r.integer(8); n > 0; n--) yield* change(r, source, round);
        })();
        await source.commit(changes);
      }
      const replaying = r.next() < 0.4;
      if (replaying) {
        const ids = (await listed()).map(({ id }) => id);
        await ledger.ask(source.sourceId, ids, 'replaying');
      }
      const failpoints = `${r.pick(points)}=kill@${1 + r.integer(2)}`;
      const child = spawnDelivery(harness, config, {
        storeFile,
        failpoints,
        ...(r.next() < 0.75 ? { refused: 'bad' } : {}),
      });
      const how = await ends(child, context, async () => {
        const open = await listed();
        return (await delivered()) && open.every(({ state }) => state !== 'replaying');
      });
      expect(['SIGKILL', 0], context).toContain(how);
      rounds.push(`${failpoints}:${how}`);
      if (how === 'SIGKILL') deaths++;
      const { rows: twice } = await harness.pool.query(
        `select key from tidemark.quarantine where source_id = $1 and state in ('held', 'replaying', 'dropped')
         group by destination, unit, topic, key having count(*) > 1`,
        [source.sourceId],
      );
      expect(twice, context).toEqual([]);
    }
    expect(deaths, `seed ${r.seed}: ${rounds.join(' ')}`).toBeGreaterThan(2);
    await ledger.ask(
      source.sourceId,
      (await listed()).map(({ id }) => id),
      'replaying',
    );
    const last = spawnDelivery(harness, config, { storeFile });
    const all = async () => (await delivered()) && (await listed()).length === 0;
    expect(await ends(last, `seed ${r.seed}`, all)).toBe(0);
    expect(new MemoryStore(storeFile).dump(), `seed ${r.seed}`).toEqual(source.expected());
  } finally {
    await source.close();
  }
});
