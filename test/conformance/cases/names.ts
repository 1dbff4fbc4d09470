/** Identifiers as Postgres takes them. */
import { test } from 'vitest';
import { columnOf, shapeOf } from '../example-tables.ts';
import type { Subject } from '../subject.ts';
import type { InTrial } from '../suite.ts';

/** 63 bytes of UTF-8. */
const longest = `${'ü'.repeat(30)}abc`;

const hostileNames = [
  ...[
    'a b',
    'a-b',
    'a.b',
    '"',
    "'",
    '""',
    '`',
    '\\',
    '$',
    '%',
    '?',
    ':x',
    '[x]',
    '{x}',
    '(x)',
    ',',
    ';',
    '--',
    '/*',
  ],
  ...['ä', '漢字', '🌊', longest, 'x'.repeat(63), ' ', ' x', 'x ', '\n', '\t', '1st', '9'],
  ...['select', 'table', 'order', 'user', 'null', 'true', 'default', 'index', 'end', 'date', 'values'],
  ...['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'length'],
  ...['_op', '_position', '_key', '_commit_time', 'position', 'op', 'key', 'tidemark', 'version', 'before'],
];

export function nameCases(_subject: Subject, inTrial: InTrial): void {
  test(
    'of columns',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const columns = hostileNames.map((name, i) => columnOf(name, 'text', i + 2));
      const table = trial.source.keyed(
        shapeOf('odd_columns', [columnOf('id', 'integer', 1, true), ...columns]),
      );
      const row = (n: number) => [String(n), ...hostileNames.map((name) => `${name} of ${n}`)];
      table.insert(row(1), row(2), row(3));
      await trial.deliver(writer);
      table.update(['1'], { [hostileNames[3]!]: null, __proto__: null });
      table.update(['2'], { 'a b': 'partial' }, { untouched: ['"', "'", longest, '__proto__'] });
      table.delete(['3']);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'of key columns',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const key = ['a "b"', "it's", 'order', longest].map((name, i) => columnOf(name, 'text', i + 1, true));
      const table = trial.source.keyed(shapeOf('odd_key', [...key, columnOf('n', 'text', 9)]));
      table.insert(['a', 'b', 'c', 'd', '1'], ['a', 'b', 'c', 'e', '2'], ['', '', '', '', '3']);
      await trial.deliver(writer);
      table.update(['a', 'b', 'c', 'd'], {}, { untouched: ['n'] });
      table.move(['a', 'b', 'c', 'e'], { order: 'moved' }, { untouched: ['n'] });
      table.delete(['', '', '', '']);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'of tables and schemas',
    inTrial(async (trial) => {
      const writer = await trial.open();
      // No two of them become one topic.
      const odd = [
        'a b',
        'c.d',
        '"quoted"',
        "it's",
        'ünï',
        longest,
        'x'.repeat(63),
        'select',
        'user',
        '9',
        '__proto__',
      ];
      const columns = ['id integer key', 'name text'];
      const tables = odd.flatMap((name, i) => [
        trial.source.keyed(shapeOf(name, columns, { oid: 17_000 + i })),
        trial.source.keyed(shapeOf('plain', columns, { schema: name, oid: 18_000 + i })),
      ]);
      for (const [i, table] of tables.entries()) table.insert([String(i), `row ${i}`], ['1000', 'x']);
      await trial.deliver(writer);
      for (const table of tables) table.update(['1000'], { name: 'y' });
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    'that differ in case alone',
    inTrial(async (trial) => {
      const writer = await trial.open();
      const columns = [
        'Id integer key',
        'value text',
        'Value text',
        'VALUE text',
        'ID text',
        'ſ text',
        's text',
      ];
      const lower = trial.source.keyed(shapeOf('cases', columns));
      const upper = trial.source.keyed(shapeOf('Cases', columns, { oid: 17_000 }));
      const other = trial.source.keyed(shapeOf('cases', columns, { schema: 'App', oid: 17_001 }));
      lower.insert(['1', 'value', 'Value', 'VALUE', 'ID', 'ſ', 's']);
      upper.insert(['1', 'a', 'b', 'c', 'd', 'e', 'f']);
      other.insert(['1', null, 'B', null, 'D', null, 'F']);
      await trial.deliver(writer);
      lower.update(['1'], { Value: 'changed' }, { untouched: ['value', 'VALUE'] });
      upper.delete(['1']);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );
}
