import { describe, expect, test } from 'vitest';
import { splitList } from '../../src/platform/configuration/parse-field.ts';
import { parseTableName, parseTablePattern, tableName } from '../../src/platform/table-name.ts';

test.each([
  ['app', 'orders', 'app.orders'],
  ['app', 'Orders', 'app.Orders'],
  ['a.b', 'c', '"a.b".c'],
  ['a', 'b.c', 'a."b.c"'],
  ['a', 'say "hi"', 'a."say ""hi"""'],
  ['a', '*', 'a."*"'],
  ['ä', 'x,y', 'ä."x,y"'],
])('%s and %s are %s, and that means nothing else', (schema, name, text) => {
  expect(tableName({ schema, name })).toBe(text);
  expect(parseTableName(text)).toEqual({ schema, name });
  expect(parseTablePattern(text)).toEqual({ schema, name });
});

describe('what people write', () => {
  test('quotes where none are needed', () => {
    expect(parseTableName(' "app"."orders" ')).toEqual({ schema: 'app', name: 'orders' });
  });

  test('all tables of a schema', () => {
    expect(parseTablePattern('"we ird".*')).toEqual({ schema: 'we ird', name: null });
    expect(parseTableName('app.*')).toBeNull();
  });

  test.each(['orders', 'a.b.c', 'a b.c', 'a."b', 'a."b"c"', '"".x', '*.*', 'a.b*'])(
    '%s is nothing',
    (text) => {
      expect(parseTablePattern(text)).toBeNull();
    },
  );

  test('lists', () => {
    expect(splitList('a.b, "x,y".z')).toEqual(['a.b', ' "x,y".z']);
  });
});
