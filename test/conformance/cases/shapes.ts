/** The source's ALTER TABLE, within a Window and between two. */
import { test } from 'vitest';
import type { TableShape } from '../../../src/connector/shape.ts';
import type { Cell } from '../../../src/connector/sink.ts';
import { columnOf, shapeOf } from '../example-tables.ts';
import type { KeyedTable } from '../keyed-table.ts';
import type { Casts } from '../model-table.ts';
import type { Subject } from '../subject.ts';
import type { InTrial } from '../suite.ts';
import { expectRefusal } from '../trial.ts';

const id = columnOf('id', 'bigint', 1, true);
const title = columnOf('title', 'character varying(20)', 2);
const count = columnOf('count', 'integer', 3);
const body = columnOf('body', 'text', 4);
const before = shapeOf('documents', [id, title, count, body]);

function row(n: number, shape: TableShape): Cell[] {
  return shape.columns.map(({ type, name }) =>
    /^(big|small)?int|^numeric/.test(type) ? String(n) : `${name} ${n}`,
  );
}

interface Alteration {
  what: string;
  after: TableShape;
  casts?: Casts;
}

const alterations: Alteration[] = [
  {
    what: 'a column added',
    after: shapeOf('documents', [id, title, count, body, columnOf('extra', 'text', 5)]),
  },
  {
    what: 'columns added with defaults',
    after: shapeOf('documents', [
      id,
      title,
      count,
      body,
      { ...columnOf('state', 'text', 5), missing: "it's new" },
      { ...columnOf('level', 'integer', 6), missing: '3' },
    ]),
  },
  { what: 'a column dropped', after: shapeOf('documents', [id, title, body]) },
  {
    what: 'a column renamed',
    after: shapeOf('documents', [id, { ...title, name: 'headline' }, count, body]),
  },
  {
    what: 'two columns that change names',
    after: shapeOf('documents', [id, { ...title, name: 'body' }, count, { ...body, name: 'title' }]),
  },
  {
    what: 'columns widened',
    after: shapeOf('documents', [id, { ...title, type: 'text' }, { ...count, type: 'bigint' }, body]),
  },
  {
    what: 'a column dropped and added again under its name',
    after: shapeOf('documents', [id, title, body, columnOf('count', 'integer', 5)]),
  },
  {
    what: 'one renamed, one added under the old name, one dropped',
    after: shapeOf('documents', [
      id,
      { ...title, name: 'headline' },
      body,
      { ...columnOf('title', 'text', 5), missing: 'untitled' },
    ]),
  },
  {
    what: 'a key column renamed',
    after: shapeOf('documents', [{ ...id, name: 'number' }, title, count, body]),
  },
  { what: 'columns in another order', after: shapeOf('documents', [body, id, count, title]) },
];

export function shapeCases(subject: Subject, inTrial: InTrial): void {
  for (const { what, after, casts } of alterations) {
    test(
      `${what}, between Windows`,
      inTrial(async (trial) => {
        const writer = await trial.open();
        const table = trial.source.keyed(before);
        fill(table, 1);
        await trial.deliver(writer);
        table.alter(after, casts);
        touch(table);
        await trial.deliver(writer);
        await trial.expectReadBack(writer);
        touchAgain(table);
        await trial.deliver(await trial.open());
        await trial.expectReadBack(writer);
      }),
    );
    test(
      `${what}, within a Window`,
      inTrial(async (trial) => {
        const writer = await trial.open();
        const table = trial.source.keyed(before);
        fill(table, 1);
        await trial.deliver(writer);
        fill(table, 20);
        table.update(['2'], { title: 'told before' });
        table.update(['3'], { count: '33' }, { untouched: ['body'] });
        table.delete(['8']);
        table.alter(after, casts);
        touch(table);
        await trial.deliver(writer);
        await trial.expectReadBack(writer);
      }),
    );
  }

  test(
    'three shapes in the first Window that a table has',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(before);
      fill(table, 1);
      table.alter(alterations[0]!.after);
      touch(table);
      table.alter(
        shapeOf('documents', [id, { ...title, name: 'headline' }, body, columnOf('extra', 'text', 5)]),
      );
      table.insert(row(90, table.shape));
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'a Window of two shapes is there once after a crash',
    inTrial(async (trial) => {
      const [failpoint] = subject.failpoints;
      let crash = false;
      const doomed = await trial.open({
        failpoint: async (name) => {
          if (crash && name === failpoint) throw new Error('the worker died here');
        },
      });
      const table = trial.source.keyed(before);
      fill(table, 1);
      await trial.deliver(doomed);
      fill(table, 20);
      table.alter(alterations[1]!.after);
      touch(table);
      const plan = trial.cutOne();
      crash = true;
      await doomed.write(plan).catch(() => undefined);
      await doomed.close();
      const heir = await trial.open();
      await heir.writeUntilTaken(plan);
      await heir.write(plan);
      await trial.expectSame();
    }),
  );

  test(
    'a truncate before the change of shape, and one after it',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(before);
      fill(table, 1);
      await trial.deliver(writer);
      table.truncate();
      fill(table, 20);
      table.alter(alterations[1]!.after);
      table.insert(row(90, table.shape));
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      fillAny(table, 30);
      table.alter(alterations[0]!.after);
      table.truncate();
      table.insert(row(91, table.shape));
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'a table dropped and made anew under its name has none of the old rows',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(before);
      fill(table, 1);
      await trial.deliver(writer);
      table.alter(shapeOf('documents', [id, columnOf('body', 'text', 2)], { oid: 17_000 }));
      table.insert(['2', 'of the new table']);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'an enum gets a label, and a row has it at once',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const severity = (labels: string[]) => ({
        ...columnOf('level', 'app.severity', 2),
        enum: { schema: 'app', name: 'severity', labels },
      });
      const table = trial.source.keyed(shapeOf('alerts', [id, severity(['low', 'high'])]));
      table.insert(['1', 'low'], ['2', 'high']);
      await trial.deliver(writer);
      table.alter(shapeOf('alerts', [id, severity(['low', "it's", 'high'])]));
      table.insert(['3', "it's"]);
      await trial.deliver(writer);
      // The stream says nothing of a label until the next Relation.
      table.insert(['4', 'unheard of']);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  if (subject.refuses.keyless === undefined) {
    test(
      'a table without a key: added, renamed and dropped columns',
      inTrial(async (trial) => {
        const writer = await trial.open();
        const first = shapeOf('lines', ['a text', 'b integer']);
        const table = trial.source.keyless(first);
        table.insert(['x', '1'], ['x', '1'], ['y', null]);
        await trial.deliver(writer);
        table.insert(['z', '3']);
        const [a, b] = first.columns as [(typeof first.columns)[0], (typeof first.columns)[0]];
        const added = { ...columnOf('c', 'text', 3), missing: 'c' };
        table.alter(shapeOf('lines', [{ ...a, name: 'renamed' }, b, added]));
        table.insert(['x', '1', 'c'], ['x', '1', null]);
        table.delete(['x', '1', 'c']);
        table.delete(['z', '3', 'c']);
        await trial.deliver(writer);
        await trial.expectReadBack(writer);
        table.alter(shapeOf('lines', [{ ...a, name: 'renamed' }, added]));
        table.delete(['x', 'c']);
        table.insert(['q', 'q']);
        await trial.deliver(writer);
        await trial.expectReadBack(writer);
      }),
    );
  }

  const refusal = subject.refuses['key-definition-change'];
  test(
    refusal === undefined ? 'another key' : `another key is refused with ${refusal}`,
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(before);
      fill(table, 1);
      const [first] = await trial.deliver(writer);
      const key = { ...title, key: true, nullable: false };
      table.alter(shapeOf('documents', [id, key, count, body]));
      table.insert(row(50, table.shape));
      table.update(['1', 'title 1'], { count: '11' }, { untouched: ['body'] });
      if (refusal !== undefined) {
        await expectRefusal(writer.write(trial.cutOne()), refusal);
        await trial.expectSame(first);
        return;
      }
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      table.insert(['1', 'another', null, null]);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );
}

/** Ten rows from n on, in the shape from before. */
function fill(table: KeyedTable, n: number): void {
  fillAny(table, n);
  table.update([String(n + 8)], { body: null, count: null });
}

function fillAny(table: KeyedTable, n: number): void {
  for (let i = 0; i < 10; i += 1) table.insert(row(n + i, table.shape));
}

/** Changes of older rows and new ones, in whatever shape. */
function touch(table: KeyedTable): void {
  const { columns } = table.shape;
  const text = columns.find(({ type }) => type === 'text')!.name;
  const other = columns.find(({ key, name }) => !key && name !== text)!;
  const key = columns[table.shape.keyColumns[0]!]!.name;
  table.insert(row(70, table.shape), row(71, table.shape));
  table.update(['2'], { [text]: 'told after' });
  table.update(['4'], { [other.name]: other.type.includes('int') ? '44' : 'partial' }, { untouched: [text] });
  table.move(['5'], { [key]: '55' }, { untouched: [text] });
  table.delete(['6']);
}

function touchAgain(table: KeyedTable): void {
  const text = table.shape.columns.find(({ type }) => type === 'text')!.name;
  table.update(['7'], {}, { untouched: [text] });
  table.update(['55'], {}, { untouched: [text] });
  table.insert(row(80, table.shape));
}
