/** Values that an update left as they were and that are not in the stream. */
import { expect, test } from 'vitest';
import { shapeOf, user, userRows, users } from '../example-tables.ts';
import type { Subject } from '../subject.ts';
import type { InTrial } from '../suite.ts';
import { expectRefusal } from '../trial.ts';

export function toastCases(subject: Subject, inTrial: InTrial): void {
  test(
    'they keep what the destination has',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(...userRows(1, 9));
      table.update(['1'], { bio: null });
      table.update(['2'], { bio: '' });
      await trial.deliver(writer);
      for (const id of ['1', '2', '3']) table.update([id], { score: '7.00' }, { untouched: ['bio', 'name'] });
      table.update(['4'], { name: null }, { untouched: ['bio'] });
      table.update(['4'], { bio: 'now told' }, { untouched: ['name'] });
      table.update(['5'], { score: null }, { untouched: ['bio'] });
      table.update(['5'], { score: '5.50' }, { untouched: ['name', 'bio'] });
      table.update(['6'], { bio: 'told first' });
      table.update(['6'], { score: '6.60' }, { untouched: ['bio', 'name'] });
      table.update(['7'], {}, { untouched: ['bio', 'name'] });
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      table.update(['5'], { score: '1.00' }, { untouched: ['bio', 'name'] });
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'they come along with a change of key',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(...userRows(1, 9));
      await trial.deliver(writer);
      table.move(['1'], { id: '101' }, { untouched: ['bio', 'name'] });
      table.insert(user(1, 2));
      table.update(['2'], { name: 'before the move' }, { untouched: ['bio'] });
      table.move(['2'], { id: '102' }, { untouched: ['name', 'bio'] });
      table.update(['102'], { score: '0.01' }, { untouched: ['bio', 'name'] });
      table.delete(['3']);
      table.move(['4'], { id: '3' }, { untouched: ['bio'] });
      table.move(['3'], { id: '4' }, { untouched: ['bio', 'name'] });
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      table.move(['101'], { id: '201' }, { untouched: ['bio'] });
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'they come along when rows change places',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(...userRows(1, 6));
      await trial.deliver(writer);
      const untouched = ['bio', 'name'];
      table.move(['1'], { id: '99' }, { untouched });
      table.move(['2'], { id: '1' }, { untouched });
      table.move(['3'], { id: '2' }, { untouched });
      table.move(['99'], { id: '3' }, { untouched });
      // Its row goes on elsewhere, and the key has a new one.
      table.move(['4'], { id: '44' }, { untouched });
      table.insert(user(4, 9));
      table.update(['4'], { score: null }, { untouched });
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'of every column, in a wide row',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const names = Array.from({ length: 70 }, (_, i) => `c${i}`);
      const table = trial.source.keyed(
        shapeOf('wide', ['id integer key', ...names.map((name) => `${name} text`)]),
      );
      const row = (id: number) => [String(id), ...names.map((name) => `${name} of ${id}`)];
      table.insert(...Array.from({ length: 70 }, (_, i) => row(i)));
      await trial.deliver(writer);
      for (const [i, name] of names.entries())
        table.update(
          [String(i)],
          { [names[(i + 1) % 70]!]: 'told' },
          { untouched: [name, names[(i + 9) % 70]!] },
        );
      table.update(['3'], {}, { untouched: names });
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  if (subject.mode !== 'merge') return;

  test(
    'an update of a row that a snapshot has yet to bring is left out',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(user(1), user(2));
      await trial.deliver(writer);
      table.beginSnapshot('of users');
      table.updateOfAbsent(['7', 'partial', undefined, null]);
      table.update(['1'], { name: 'whole' }, { untouched: ['bio'] });
      await trial.deliver(writer);
      await trial.expectSame();
      table.read(user(1, 3), user(2, 3), user(7, 3));
      table.endSnapshot('of users');
      await trial.deliver(writer);
      await trial.expectSame();
    }),
  );

  test(
    'an update that may lack its row is written where the row is there',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(user(1), user(2));
      await trial.deliver(writer);
      table.update(['1'], { score: '3.00' }, { untouched: ['bio', 'name'] });
      const plan = trial.cutOne();
      for (const state of plan.parts[0]!.states) if (state.op === 'upsert') state.mayBeAbsent = true;
      await writer.write(plan);
      await trial.expectSame();
    }),
  );

  test(
    'an update whose row is missing is an error, and nothing of its Window is seen',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(user(1));
      const [first] = await trial.deliver(writer);
      table.insert(user(3));
      table.update(['1'], { score: '3.00' }, { untouched: ['bio'] });
      const plan = trial.cutOne();
      const partial = plan.parts[0]!.states.find(
        (state) => state.op === 'upsert' && state.fillFrom !== null,
      )!;
      expect(partial.op).toBe('upsert');
      Object.assign(partial, { key: ['8'], fillFrom: ['8'] });
      await expectRefusal(writer.write(plan), 'TM407');
      await trial.expectSame(first);
    }),
  );
}
