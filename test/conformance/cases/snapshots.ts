/** The end of a snapshot of a whole table: what it did not see is not in the source. */
import { test } from 'vitest';
import { user, userRows, users, visit, visits } from '../example-tables.ts';
import type { Subject } from '../subject.ts';
import type { InTrial } from '../suite.ts';

export function snapshotCases(subject: Subject, inTrial: InTrial): void {
  test(
    'rows that a snapshot read replace what is there',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(...userRows(1, 4));
      await trial.deliver(writer);
      table.read(user(2), user(3, 2), user(9));
      table.update(['9'], { score: '1.00' }, { untouched: ['bio'] });
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  if (subject.refuses.keyless === undefined) {
    test(
      'a table without a key is replaced by what a snapshot read',
      inTrial(async (trial) => {
        const writer = await trial.open();
        const table = trial.source.keyless(visits);
        table.insert(visit(1), visit(1), visit(2));
        await trial.deliver(writer);
        trial.source.transaction(() => {
          table.truncate();
          table.read(visit(1), visit(3), visit(3));
        });
        await trial.deliver(writer);
        await trial.expectReadBack(writer);
      }),
    );
  }

  if (subject.mode === 'send') return;

  test(
    'its end removes what it did not see, and nothing that changed since it began',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(...userRows(1, 12));
      await trial.deliver(writer);
      table.beginSnapshot('first');
      table.update(['1'], { bio: 'while it runs' });
      table.update(['2'], { score: null }, { untouched: ['bio', 'name'] });
      table.move(['3'], { id: '103' }, { untouched: ['bio'] });
      table.delete(['4']);
      await trial.deliver(writer);
      table.read(user(5), user(6, 2));
      await trial.deliver(writer);
      table.insert(user(104));
      table.endSnapshot('first');
      table.insert(user(105));
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'a snapshot within one Window, and one whose end is all there is in a Window',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(...userRows(1, 6));
      await trial.deliver(writer);
      table.beginSnapshot('within');
      table.read(user(1), user(2));
      table.endSnapshot('within');
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      table.beginSnapshot('across');
      table.read(user(1));
      await trial.deliver(writer);
      table.endSnapshot('across');
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      table.beginSnapshot('of nothing');
      table.endSnapshot('of nothing');
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'a snapshot of one table leaves the others, and two may run beside each other',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      const other = trial.source.keyed({ ...users, name: 'others', oid: 16_401 });
      for (const each of [table, other]) each.insert(...userRows(1, 6));
      await trial.deliver(writer);
      table.beginSnapshot('one');
      table.read(user(1));
      other.beginSnapshot('two');
      await trial.deliver(writer);
      table.endSnapshot('one');
      other.read(user(2));
      await trial.deliver(writer);
      await trial.expectSame();
      other.endSnapshot('two');
      await trial.deliver(writer);
      await trial.expectSame();
    }),
  );

  test(
    'a truncate while it runs, and a new owner at its end',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(...userRows(1, 6));
      await trial.deliver(writer);
      table.beginSnapshot('truncated');
      table.read(user(1), user(2));
      await trial.deliver(writer);
      table.truncate();
      table.insert(user(9));
      table.read(user(9, 2));
      await trial.deliver(writer);
      table.endSnapshot('truncated');
      const plan = trial.cutOne();
      await writer.write(plan);
      const heir = await trial.open();
      await heir.write(plan);
      await trial.expectSame();
      table.insert(user(10));
      await trial.deliver(heir);
      await trial.expectReadBack(heir);
    }),
  );
}
