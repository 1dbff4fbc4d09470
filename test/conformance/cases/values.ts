/** Invariant 9, values survive: a stranger reads Postgres' own text of every value of every type. */
import { expect, test } from 'vitest';
import type { Cell } from '../../../src/connector/sink.ts';
import { columnOf, shapeOf } from '../example-tables.ts';
import type { Subject } from '../subject.ts';
import type { InTrial } from '../suite.ts';
import { hostileTexts, keyTypes, typeColumns, typeRows, typeValues } from '../type-values.ts';

const id = columnOf('id', 'integer', 1, true);

export function valueCases(subject: Subject, inTrial: InTrial): void {
  test(
    'of every type',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(shapeOf('every_type', [id, ...typeColumns]));
      for (const [n, row] of typeRows.entries()) table.insert([String(n), ...row]);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      // Every value once more, as an update and as what an update of another column leaves as it is.
      const [first, ...others] = typeColumns.map(({ name }) => name);
      for (const [n] of typeRows.entries()) {
        const next = typeRows[(n + 1) % typeRows.length]!;
        const changes = Object.fromEntries(typeColumns.map(({ name }, i) => [name, next[i]!]));
        if (n % 2 === 0) table.update([String(n)], changes);
        else table.update([String(n)], { [first!]: next[0]! }, { untouched: others.filter(canBeLeftOut) });
      }
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'NULL in every column, and back',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(shapeOf('every_type', [id, ...typeColumns]));
      const nulls: Cell[] = typeColumns.map(() => null);
      table.insert(['1', ...nulls], ['2', ...typeRows[0]!]);
      await trial.deliver(writer);
      const values = Object.fromEntries(typeColumns.map(({ name }, i) => [name, typeRows[1]![i]!]));
      table.update(['1'], values);
      table.update(['2'], Object.fromEntries(typeColumns.map(({ name }) => [name, null])));
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'of texts that mean something to somebody, also as keys',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(shapeOf('texts', ['a text key', 'b text']));
      for (const [i, text] of hostileTexts.entries()) table.insert([text, hostileTexts.at(-i)!]);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      for (const [i, text] of hostileTexts.entries()) {
        if (i % 3 === 0) table.delete([text]);
        else if (i % 3 === 1) table.update([text], { b: text });
        else table.move([text], { a: `${text}!` }, { untouched: ['b'] });
      }
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'every code point that Postgres takes',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(shapeOf('code_points', [id, 'text text']));
      for (const [n, text] of everyCodePoint().entries()) table.insert([String(n), text]);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'as keys: updates and deletes find their rows',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const tables = keyTypes.map((type, i) => {
        const { values, ...found } = typeValues.find((each) => each.type === type)!;
        const key = { ...found, ...columnOf('k', type, 1, true) };
        const shape = shapeOf(`key_${i}`, [key, columnOf('n', 'integer', 2)], { oid: 16_500 + i });
        // 0 and -0 are one key in Postgres.
        return { table: trial.source.keyed(shape), keys: values.filter((value) => value !== '-0') };
      });
      for (const { table, keys } of tables)
        for (const [n, key] of keys.entries()) table.insert([key, String(n)]);
      await trial.deliver(writer);
      for (const { table, keys } of tables) {
        for (const [n, key] of keys.entries()) {
          if (n % 2 === 0) table.update([key], { n: String(n + 100) });
          else table.delete([key]);
        }
      }
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  if (subject.refuses.keyless !== undefined) return;

  test(
    'of every type, in a table without a key',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyless(shapeOf('every_type', typeColumns));
      for (const row of typeRows) table.insert([...row]);
      table.insert([...typeRows[0]!]);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      for (const [n, row] of typeRows.entries()) if (n % 2 === 0) table.delete([...row]);
      table.update([...typeRows[1]!], [...typeRows[2]!]);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      expect(table.rows().length).toBeGreaterThan(1);
    }),
  );
}

/** Postgres leaves out what it keeps out of line: values of a type without a fixed size. */
function canBeLeftOut(column: string): boolean {
  return /_(text|json|jsonb|xml|bytea|numeric|character_varying_7_|tsvector|hstore)_?$/.test(column);
}

/** No surrogates and no zero. In pieces. */
function everyCodePoint(): string[] {
  const pieces: string[] = [];
  for (let first = 0; first < 0x110000; first += 16_384) {
    const codes = Array.from({ length: 16_384 }, (_, i) => first + i);
    const valid = codes.filter((code) => code !== 0 && !(code >= 0xd800 && code <= 0xdfff));
    pieces.push(valid.map((code) => String.fromCodePoint(code)).join(''));
  }
  return pieces;
}
