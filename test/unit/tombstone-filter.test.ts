/** What `recall --where` takes, and that nothing of its text reaches SQL but as a parameter. */
import { describe, expect, test } from 'vitest';
import { keyText, untilOf } from '../../src/command/retain-arguments.ts';
import { filterSql, parseFilter } from '../../src/retain/tombstone-filter.ts';

const column = (name: string, number: number, type: string) => ({ name, number, type, generated: false });
const key = [column('organization_id', 1, 'uuid'), column('it"s', 4, 'bigint')];
const table = { schema: 'app', name: 'notes', columns: key, key, partitioned: false, oid: 1 };

describe('the filter of Tombstones', () => {
  test('reads conditions joined by and', () => {
    expect(parseFilter(`tenant = '4''2' AND evicted_at>='2026-01-01' and "it""s" in (1, '2',-3)`)).toEqual([
      { field: 'tenant', quoted: false, operator: '=', literals: ["4'2"] },
      { field: 'evicted_at', quoted: false, operator: '>=', literals: ['2026-01-01'] },
      { field: 'it"s', quoted: true, operator: 'in', literals: ['1', '2', '-3'] },
    ]);
  });

  test('refuses whatever is not of its grammar', () => {
    for (const text of [
      '',
      'tenant',
      'tenant =',
      `tenant = '1' or tenant = '2'`,
      `tenant = '1'; drop table app.notes`,
      `tenant = '1' and`,
      `tenant = tenant`,
      `tenant in ()`,
      `tenant in ('1'`,
      `lower(tenant) = '1'`,
      `tenant = 'open`,
      `tenant = 1e5`,
      `tenant = '1' -- more`,
      `tenant is null`,
      `true`,
    ])
      expect(() => parseFilter(text), text).toThrowError(expect.objectContaining({ code: 'TM101' }));
  });

  test('knows the fields of Tombstones and the columns of the key, and no others', () => {
    for (const text of [`body = 'x'`, `"tenant" = '1'`, `destination < 'x'`, `row_key = '1'`])
      expect(() => filterSql(parseFilter(text), table, 3), text).toThrowError(
        expect.objectContaining({ code: 'TM101' }),
      );
  });

  test('puts literals into parameters alone', () => {
    const hostile = `x'') or true --`;
    const { conditions, values } = filterSql(
      parseFilter(`tenant = '${hostile}' and organization_id in ('a', 'b') and destination = 'lake'`),
      table,
      3,
    );
    expect(values).toEqual([[`x') or true --`], ['a', 'b'], ['lake']]);
    expect(conditions.join(' ')).not.toContain('true');
    expect(conditions[1]).toContain('::uuid');
    expect(conditions.join(' ').match(/\$\d/g)!.sort()).toEqual(['$1', '$2', '$3', '$4', '$5']);
  });
});

test('a key is read however it is written, unless a digit may be lost', () => {
  expect(keyText('[ "a" , 17, true]')).toBe('["a","17","true"]');
  for (const wrong of ['17', '[]', '[9007199254740993]', '[1.50]', '[null]', '[["a"]]', 'x'])
    expect(() => keyText(wrong), wrong).toThrowError(expect.objectContaining({ code: 'TM101' }));
});

test('an end is a duration, or a time with its zone, that is to come', () => {
  expect(untilOf('48h').getTime()).toBeGreaterThan(Date.now() + 47 * 3_600_000);
  expect(untilOf('2999-01-31').toISOString()).toBe('2999-01-31T00:00:00.000Z');
  expect(untilOf('2999-01-31T18:00+02:00').toISOString()).toBe('2999-01-31T16:00:00.000Z');
  for (const wrong of ['tomorrow', '48', '2020-01-01', '2999-01-31T18:00', '2999-13-01'])
    expect(() => untilOf(wrong), wrong).toThrowError(expect.objectContaining({ code: 'TM101' }));
});
