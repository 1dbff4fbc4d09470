/**
 * kill -9 around what Quarantine writes: the ledger's entry, then the dead letters, then where those are. What was
 * written before is written once more, and means nothing twice: each row is listed once, whatever counts it agrees, and a
 * replay brings it as the source has it.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { QuarantineEntry } from '../../src/deliver/quarantine/quarantine-ledger.ts';
import type { VerifyReport } from '../../src/verify/report.ts';
import { FaultStack, type Pipeline, until } from '../fixtures/pipeline.ts';
import type { TidemarkProcess } from '../fixtures/tidemark-process.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('quarantine');
});
afterAll(async () => {
  await faults?.stop();
});

const options = { destinations: ['replica'], tables: 'app.notes' } as const;
const long = (text: string) => `${text} ${'x'.repeat(40)}`;

async function entries(pipeline: Pipeline, more: string[] = []): Promise<QuarantineEntry[]> {
  const { stdout } = await pipeline.command(['quarantine', 'list', '--json', ...more]);
  return JSON.parse(stdout) as QuarantineEntry[];
}

async function verified(pipeline: Pipeline): Promise<VerifyReport['tables'][number]> {
  const { code, stdout, stderr } = await pipeline.command(['verify', 'replica', '--json']);
  expect([0, 1], stdout + stderr).toContain(code);
  return (JSON.parse(stdout) as VerifyReport).tables[0]!;
}

async function dies(process: TidemarkProcess): Promise<void> {
  expect(await process.exitsWithin(60_000), process.output().slice(-2000)).toBe('SIGKILL');
}

test('a worker that dies between the dead letters and the ledger lists no row twice and loses none', () =>
  faults.run('quarantine', options, async (pipeline) => {
    const { source, replica, control } = pipeline;
    // Out of line, so that an update of the title leaves the body out of the stream.
    await source.query(`create table app.notes (id int primary key, title text, body text);
      alter table app.notes alter body set storage external`);
    const reader = pipeline.replicate();
    await pipeline.streaming(reader);
    const body = 'y'.repeat(4000);
    await source.query(`insert into app.notes select n, 'first', $1 from generate_series(1, 6) n`, [body]);
    const first = pipeline.deliver();
    await pipeline.verify('replica');
    await first.stop();
    await replica.query('alter table app.notes add constraint short check (length(title) < 20)');

    await source.query('begin');
    await source.query(`update app.notes set title = $1 where id in (1, 2)`, [long('refused')]);
    await source.query(`insert into app.notes values (7, $1, $2)`, [long('refused'), body]);
    await source.query(`update app.notes set title = $1 where id = 7`, [long('refused again')]);
    await source.query(`update app.notes set title = 'taken' where id = 3`);
    await source.query('commit');
    await pipeline.published();
    for (const point of ['after-withhold', 'after-dead-letters', 'after-dead-letters'])
      await dies(pipeline.deliver(`${point}=kill`));
    // The row is known, and where its Changes are is not.
    const { rows: noted } = await control.query(
      'select count(distinct key)::int as keys, count(*)::int as entries from tidemark.quarantine',
    );
    expect(noted[0].keys).toBeGreaterThan(0);
    expect(noted[0].entries).toBe(noted[0].keys);
    expect((await control.query('select from tidemark.quarantined_changes')).rowCount).toBe(0);

    pipeline.deliver();
    const titles = async () =>
      Object.fromEntries(
        (await replica.query('select id, title from app.notes order by id')).rows.map(
          ({ id, title }) => [id, title] as [number, string],
        ),
      );
    await until('the Window goes on without them', 60_000, async () => (await titles())[3] === 'taken');
    expect(await titles()).toEqual({
      1: 'first',
      2: 'first',
      3: 'taken',
      4: 'first',
      5: 'first',
      6: 'first',
    });
    const listed = await entries(pipeline);
    expect(listed.map(({ state, changes }) => [state, changes])).toEqual([
      ['held', expect.any(Number)],
      ['held', expect.any(Number)],
      ['held', expect.any(Number)],
    ]);
    expect(listed.map(({ changes }) => changes).sort()).toEqual([1, 1, 2]);

    const twice = listed.find(({ changes }) => changes === 2)!;
    const shown = await pipeline.command(['quarantine', 'show', String(twice.id), '--json']);
    expect(JSON.parse(shown.stdout)[0].rows).toMatchObject([
      { op: 'c', key: ['7'], values: { title: long('refused'), body }, unchanged: [] },
      { op: 'u', key: ['7'], values: { title: long('refused again') }, unchanged: ['body'] },
    ]);

    // What comes later of the key waits with it, though it would be taken; a whole row ends the waiting.
    await source.query(`update app.notes set title = 'mended' where id = 1`);
    await source.query(`update app.notes set title = 'other' where id = 4`);
    await source.query(`update app.notes set title = 'whole', body = 'short' where id = 2`);
    await until('the later Windows', 60_000, async () => {
      const { 2: second, 4: fourth } = await titles();
      return second === 'whole' && fourth === 'other';
    });
    expect((await titles())[1]).toBe('first');
    expect((await entries(pipeline)).map(({ changes }) => changes).sort()).toEqual([2, 2]);
    expect((await pipeline.status()).destinations[0]!.quarantined).toBe(2);
    const compared = await verified(pipeline);
    expect(compared).toMatchObject({
      status: 'different',
      quarantined: 2,
      missing: 1,
      extra: 0,
      different: 1,
    });
    // Of the rows in Quarantine, and of nothing else.
    expect(compared.hint).toMatch(/^2 of its rows are in Quarantine[^.]*\.$/);

    // A replay that dies behind the destination's commit, and once more before the ledger knows of it.
    await pipeline.newest('deliver').stop();
    await replica.query('alter table app.notes drop constraint short');
    const ids = (await entries(pipeline)).map(({ id }) => String(id));
    await control.query(`update tidemark.quarantine set state = 'replaying' where state = 'held'`);
    for (const point of ['postgres-sink-committed', 'after-merge', 'after-ledger'])
      await dies(pipeline.deliver(`${point}=kill`));
    pipeline.deliver();
    await until('the rows are where they belong', 60_000, async () => (await entries(pipeline)).length === 0);
    expect(await titles()).toMatchObject({ 1: 'mended', 7: long('refused again') });
    await pipeline.verify('replica');
    const done = await entries(pipeline, ['--all']);
    expect(done.map(({ state }) => state).sort()).toEqual(['replayed', 'replayed', 'superseded']);
    // Asked for again, it is no more there to be replayed.
    expect((await pipeline.command(['quarantine', 'replay', ...ids])).code).toBe(2);
    // A name that is not there is no empty Quarantine.
    for (const action of ['list', 'replay', 'drop'])
      expect((await pipeline.command(['quarantine', action, '--destination', 'replicas'])).code).toBe(2);
    // All of a destination's rows are those that wait: what was dropped stays so.
    const [id] = done.flatMap(({ id, state }) => (state === 'replayed' ? [id] : []));
    await control.query(`update tidemark.quarantine set state = 'dropped' where id = $1`, [id]);
    const none = await pipeline.command(['quarantine', 'replay', '--destination', 'replica', '--json']);
    expect(JSON.parse(none.stdout)).toMatchObject({ ok: true, replayed: 0 });
    expect(await entries(pipeline)).toMatchObject([{ id, state: 'dropped' }]);
    await control.query(`update tidemark.quarantine set state = 'replayed' where id = $1`, [id]);
    const back = '--from=00000001/0000000000000001/0000000000000001';
    const notMoved = await pipeline.command(['destination', 'replay', 'replica', back, '--yes', '--json']);
    expect(notMoved.code, notMoved.stdout).toBe(2);
    expect(notMoved.stdout).toContain('--from held');
    await source.query(`update app.notes set title = 'later' where id = 1`);
    await until('a later change', 60_000, async () => (await titles())[1] === 'later');
    await pipeline.verify('replica');
    expect((await pipeline.status()).destinations[0]!.quarantined).toBe(0);
  }));
