/** The canonical form and the content hash of a row, by vectors that never change: docs/retention.md has them too. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { Cell } from '../../src/connector/sink.ts';
import { canonicalRow, hashRow, isRow } from '../../src/retain/canonical-row.ts';
import { random } from './deliver-random.ts';

const salt = Buffer.alloc(32, 7);

interface Vector {
  row: Record<string, Cell>;
  canonical: string;
  hash: string;
}

const vectors: Vector[] = JSON.parse(
  readFileSync(new URL('../fixtures/canonical-rows.json', import.meta.url), 'utf8'),
) as Vector[];

const cellsOf = (row: Record<string, Cell>) => new Map(Object.entries(row));

test.each(vectors)(
  'the canonical form of $canonical and its hash stay what they are',
  ({ row, canonical, hash }) => {
    expect(canonicalRow(cellsOf(row)).toString('utf8')).toBe(canonical);
    expect(hashRow(cellsOf(row), salt).hash.toString('hex')).toBe(hash);
    // The slow twin: what the page says, in one line.
    expect(createHash('sha256').update(salt).update(canonical).digest('hex')).toBe(hash);
  },
);

test('the vectors are in the manual', () => {
  const page = readFileSync(new URL('../../docs/retention.md', import.meta.url), 'utf8');
  for (const { hash } of vectors) expect(page).toContain(hash);
});

/** What the page says, byte by byte. */
function slowForm(row: ReadonlyMap<string, Cell>): Buffer {
  const sized = (text: string) => {
    const bytes = Buffer.from(text, 'utf8');
    return Buffer.concat([Buffer.from(`${bytes.length}:`), bytes]);
  };
  const names = [...row.keys()].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  const parts = names.map((name) => {
    const cell = row.get(name)!;
    return [sized(name), Buffer.from('='), cell === null ? Buffer.from('n') : sized(cell), Buffer.from(';')];
  });
  return Buffer.concat([Buffer.from('tidemark-row-v1\n'), ...parts.flat()]);
}

test('the canonical form and the hash of random rows are those of the slow form, names beyond the first plane too', () => {
  const r = random();
  const seed = `TIDEMARK_SEED=${r.seed}`;
  const text = () =>
    Array.from({ length: r.integer(6) }, () =>
      r.pick(['a', 'Z', 'é', '\uffee', '😀', '𐀀', ';', '\n', '0']),
    ).join('');
  for (let i = 0; i < 2000; i++) {
    const row = new Map<string, Cell>();
    for (let n = r.integer(8); n >= 0; n--) row.set(text(), r.integer(5) === 0 ? null : text());
    const slow = slowForm(row);
    expect(canonicalRow(row), seed).toEqual(slow);
    const known = hashRow(row, salt);
    expect(known.hash, seed).toEqual(createHash('sha256').update(salt).update(slow).digest());
    const shuffled = { ...known, columns: known.columns.toReversed() };
    expect(isRow(row, shuffled), seed).toBe(true);
  }
});

test('columns come in the order of their bytes, whatever order they are given in', () => {
  const one = new Map<string, Cell>([
    ['b', '1'],
    ['Z', null],
    ['é', ''],
    ['a', 'x'],
  ]);
  const other = new Map([...one].reverse());
  expect(canonicalRow(one)).toEqual(canonicalRow(other));
  expect(hashRow(one).columns).toEqual(['Z', 'a', 'b', 'é']);
});

test('NULL, the empty text, and where a value ends are told apart', () => {
  const rows: Record<string, Cell>[] = [
    { a: null },
    { a: '' },
    { a: 'n' },
    { a: 'x;1:b=1:y' },
    { a: 'x', b: 'y' },
  ];
  const forms = rows.map((row) => canonicalRow(cellsOf(row)).toString());
  expect(new Set(forms).size).toBe(rows.length);
});

test('a row that comes back is known by what was hashed, whatever columns came since; not once the salt is gone', () => {
  const row = cellsOf({ id: '1', body: 'text' });
  const known = hashRow(row);
  expect(isRow(new Map([...row, ['added', '5']]), known)).toBe(true);
  expect(isRow(new Map([...row, ['body', 'other']]), known)).toBe(false);
  expect(isRow(cellsOf({ id: '1' }), known)).toBe(false);
  expect(isRow(row, { ...known, salt: null })).toBeNull();
  expect(isRow(row, { ...known, version: 2 })).toBeNull();
  expect(hashRow(row).hash).not.toEqual(known.hash);
});
