/**
 * Evictions: the source let go of rows on proof that the destination has them, so here they stay. CONFORMANCE_SEED=<n>
 * repeats one random schedule alone.
 */
import { test } from 'vitest';
import { user, userRows, users } from '../example-tables.ts';
import type { KeyedTable } from '../keyed-table.ts';
import { seeded } from '../random.ts';
import { RetiredSchedule } from '../retired-schedule.ts';
import type { Subject } from '../subject.ts';
import type { InTrial } from '../suite.ts';

export function retiredCases(subject: Subject, inTrial: InTrial): void {
  test(
    'stay when the table is truncated',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(...userRows(1, 12));
      await trial.deliver(writer);
      table.evict(['3']);
      table.evict(['4']);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      table.truncate();
      table.insert(user(20));
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      table.truncate();
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'stay also where the Window that lets them go changed them',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(...userRows(1, 8));
      await trial.deliver(writer);
      table.update(['1'], { bio: 'last words' });
      evictChanged(table);
      await trial.deliver(writer);
      await trial.expectSame();
      table.truncate();
      table.insert(user(50));
      table.evict(['50']);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      table.truncate();
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'stay when the table is truncated in the very Window that lets them go',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(...userRows(1, 8));
      await trial.deliver(writer);
      evictChanged(table);
      table.insert(user(10));
      table.update(['4'], { score: '4.44' }, { untouched: ['bio'] });
      table.truncate();
      table.insert(user(4, 2), user(11));
      table.evict(['4']);
      table.truncate();
      table.insert(user(12));
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      table.evict(['12']);
      table.truncate();
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'go with the truncate of a Window in which the source had them back, or deleted them, before',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(...userRows(1, 5));
      for (const id of ['1', '2', '3', '4', '5']) table.evict([id]);
      await trial.deliver(writer);
      table.insert(user(1, 2));
      table.read(user(2, 2));
      table.delete(['3']);
      table.insert(user(4, 2));
      table.evict(['4']);
      table.truncate();
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      table.insert(user(5, 2));
      table.truncate();
      table.insert(user(5, 3));
      table.update(['5'], { score: '5.55' }, { untouched: ['bio'] });
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'are ordinary rows again once the source has them back',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(...userRows(1, 8));
      for (const id of ['1', '2', '3', '4', '5']) table.evict([id]);
      await trial.deliver(writer);
      table.insert(user(1, 2));
      table.read(user(2));
      table.insert(user(3, 2));
      table.evict(['3']);
      table.delete(['4']);
      await trial.deliver(writer);
      await trial.expectSame();
      table.truncate();
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'are written once, whoever writes them again',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(user(1), user(2));
      await trial.deliver(writer);
      table.evict(['1']);
      const plan = trial.cutOne();
      await writer.write(plan);
      const heir = await trial.open();
      await heir.write(plan);
      table.truncate();
      await trial.deliver(heir);
      await trial.expectSame();
    }),
  );

  const wanted = process.env.CONFORMANCE_SEED;
  const first = Math.floor(Math.random() * 2 ** 31);
  const seeds = wanted === undefined ? Array.from({ length: 6 }, (_, i) => first + i) : [Number(wanted)];
  test.each(seeds)('whatever else happens to them and the table, CONFORMANCE_SEED=%i', (seed) =>
    inTrial((trial) => new RetiredSchedule(trial, seeded(seed)).run())(),
  );

  if (subject.mode === 'send') return;

  test(
    'stay when a snapshot does not see them',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(...userRows(1, 8));
      await trial.deliver(writer);
      table.evict(['1']);
      await trial.deliver(writer);
      table.beginSnapshot('after evictions');
      table.update(['2'], { bio: 'while it runs' });
      table.evict(['2']);
      table.read(user(3, 2), user(4, 2));
      await trial.deliver(writer);
      table.evict(['5']);
      table.endSnapshot('after evictions');
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );
}

/** Lets go of rows that came before, were changed, got another key, or are new: of `userRows(1, 8)` the first three. */
function evictChanged(table: KeyedTable): void {
  table.evict(['1']);
  table.update(['2'], { score: '2.22' }, { untouched: ['bio'] });
  table.evict(['2']);
  table.move(['3'], { id: '33' }, { untouched: ['bio', 'name'] });
  table.evict(['33']);
  table.insert(user(9));
  table.evict(['9']);
}
