/** Inserts, updates, deletes, key changes, truncates and copies: the state of a key is that of its last Change. */
import { test } from 'vitest';
import { shapeOf, user, userRows, users, visit, visits } from '../example-tables.ts';
import type { Subject } from '../subject.ts';
import type { InTrial } from '../suite.ts';
import { expectRefusal } from '../trial.ts';

export function rowCases(subject: Subject, inTrial: InTrial): void {
  test(
    'of many Changes of a key in one Window the last one counts',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      trial.source.transaction(() => {
        table.insert(...userRows(1, 30));
        for (let version = 2; version < 10; version += 1) table.update(['7'], { bio: `version ${version}` });
      });
      table.update(['8'], { bio: '' });
      table.update(['8'], { bio: null });
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      table.update(['7'], { bio: 'first' });
      table.update(['7'], { bio: 'second' });
      table.update(['7'], { score: null });
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'deletes, also of rows that came in the same Window, and inserts after them',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(...userRows(1, 10));
      table.delete(['1']);
      await trial.deliver(writer);
      await trial.expectSame();
      table.delete(['2']);
      table.delete(['3']);
      table.insert(user(3, 2));
      table.insert(user(11));
      table.delete(['11']);
      table.delete(['4']);
      table.insert(user(4, 2));
      table.delete(['4']);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'a delete of a row that is not there is no error',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.delete(['99']);
      await trial.deliver(writer);
      table.insert(user(1));
      table.delete(['98']);
      await trial.deliver(writer);
      await trial.expectSame();
    }),
  );

  test(
    'a truncate empties the table, and what follows in its Window stays',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.truncate();
      table.insert(...userRows(1, 5));
      await trial.deliver(writer);
      await trial.expectSame();
      table.insert(user(6));
      table.truncate();
      table.insert(user(2, 2), user(7));
      table.update(['7'], { bio: 'after the truncate' }, { untouched: ['name'] });
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      table.truncate();
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      table.insert(user(1, 3));
      table.truncate();
      table.truncate();
      table.insert(user(2, 3));
      await trial.deliver(writer);
      await trial.expectSame();
    }),
  );

  test(
    'a truncate of one table leaves the others',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      const other = trial.source.keyed({ ...users, name: 'others', oid: 16_401 });
      table.insert(user(1));
      other.insert(user(1));
      await trial.deliver(writer);
      table.truncate();
      await trial.deliver(writer);
      await trial.expectSame();
    }),
  );

  const members = shapeOf('members', ['org text key', 'id integer key', 'role text']);
  test(
    'a key change moves the row, also through keys that others had',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(members);
      for (const id of ['1', '2', '3', '4']) table.insert(['acme', id, `role ${id}`]);
      await trial.deliver(writer);
      table.move(['acme', '1'], { id: '10' });
      table.move(['acme', '2'], { org: "o'brien", role: null });
      table.insert(['acme', '2', 'anew']);
      table.delete(['acme', '3']);
      table.move(['acme', '4'], { id: '3' });
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      // Two rows change places.
      table.move(['acme', '2'], { id: '99' });
      table.move(['acme', '3'], { id: '2' });
      table.move(['acme', '99'], { id: '3' });
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'a row that has nothing but its key',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(shapeOf('pairs', ['a text key', 'b integer key']));
      table.insert(['x', '1'], ['x', '2'], ['', '1']);
      await trial.deliver(writer);
      table.update(['x', '1'], {});
      table.move(['x', '2'], { a: 'y' });
      table.delete(['', '1']);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'a key may get another text of the same value',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(shapeOf('prices', ['amount numeric key', 'note text']));
      table.insert(['1.0', 'one'], ['2', 'two'], ['3.5', 'three and a half']);
      await trial.deliver(writer);
      table.move(['1.0'], { amount: '1.00' });
      table.delete(['2']);
      table.insert(['2.000', 'two again']);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'parts of a Window without a Change, and batches without a row',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(users);
      table.insert(user(1));
      await trial.deliver(writer);
      table.insert(user(2));
      const plan = trial.cutOne();
      const nothing = { number: 0, truncated: false, snapshots: [], states: [], counts: [], events: [] };
      const parts = [{ ...nothing, shape: users }, ...plan.parts, { ...nothing, shape: users }];
      await writer.write({ ...plan, parts }, withEmptyBatches);
      await trial.expectSame();
      const { position } = trial.source.next();
      const empty = { ...plan, sequence: plan.sequence + 1, from: plan.to, to: position };
      const receipt = await writer.write({ ...empty, parts: [{ ...nothing, shape: users }] });
      if (receipt.position !== position) throw new Error('the mark did not move');
      await trial.expectSame();
    }),
  );

  const refusal = subject.refuses.keyless;
  if (refusal !== undefined) {
    test(
      `a table without a key is refused with ${refusal}`,
      inTrial(async (trial) => {
        const writer = await trial.open();
        trial.source.keyless(visits).insert(visit(1));
        await expectRefusal(writer.write(trial.cutOne()), refusal);
      }),
    );
    return;
  }

  test(
    'rows without a key are counted',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyless(visits);
      for (let page = 0; page < 12; page += 1) table.insert(visit(page), visit(page % 4), visit(0));
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      table.delete(visit(0));
      table.delete(visit(0));
      table.update(visit(1), visit(2));
      table.update(visit(3), visit(3));
      table.insert(visit(50));
      table.delete(visit(50));
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      table.insert(visit(60));
      table.truncate();
      table.insert(visit(1), visit(1), [null, null], [null, null]);
      table.delete([null, null]);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'rows without a key that differ in little are different rows',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyless(shapeOf('notes', ['a text', 'b text']));
      const rows = [
        ['', null],
        [null, ''],
        ['', ''],
        [null, null],
        ['a', 'b'],
        ['ab', ''],
        ['A', 'b'],
        ['a ', 'b'],
        ['a', 'b\n'],
        ['null', null],
        ['\\N', null],
      ];
      table.insert(...rows, ...rows);
      await trial.deliver(writer);
      await trial.expectSame();
      for (const row of rows) table.delete(row);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      for (const row of rows.slice(0, 5)) table.delete(row);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );
}

async function* withEmptyBatches<T>(batches: AsyncIterable<T[]>): AsyncGenerator<T[]> {
  yield [];
  for await (const batch of batches) {
    yield batch;
    yield [];
  }
}
