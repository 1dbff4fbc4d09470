/** Verify's comparison against its slow, obvious twin: two multisets of rows. A failure prints the seed. */
import { describe, expect, test } from 'vitest';
import { RowHash } from '../../src/connector/row-hash.ts';
import type { Row } from '../../src/connector/sink.ts';
import { BucketSums, bucketCount } from '../../src/verify/bucket-sums.ts';
import { RowDifferences, selectRows } from '../../src/verify/row-differences.ts';
import { cellsText, digest, digestLane, type RowLayout, spread } from '../../src/verify/row-digest.ts';
import { CopyLines } from '../../src/verify/source-rows.ts';

/** mulberry32 */
function generator(seed: number) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const below = (n: number) => Math.floor(next() * n);
  return { below, chance: (p: number) => next() < p };
}

type Random = ReturnType<typeof generator>;

const texts = [
  '',
  'a',
  '1:',
  'n;',
  '\\N',
  'tab\there',
  'line\nfeed',
  '\\',
  'ü',
  '😀',
  '\b\f\r\v',
  'x'.repeat(90),
];
const randomCell = (random: Random) => (random.chance(0.2) ? null : texts[random.below(texts.length)]!);

const keyed: RowLayout = { all: [0, 1, 2, 3], key: [0, 1] };
const keyless: RowLayout = { all: [0, 1, 2, 3], key: [] };
const names = ['a', 'b', 'c', 'd'];
const seeds = Array.from({ length: 40 }, (_, i) => i + 1);

function randomTable(random: Random, layout: RowLayout): Row[] {
  return Array.from({ length: random.below(400) }, (_, i) => {
    const key = layout.key.length > 0 ? [String(i), texts[random.below(texts.length)]!] : [null, 'same'];
    return [...key, randomCell(random), randomCell(random)];
  });
}

/** A copy with rows removed, added, changed and shuffled. */
function disturbed(random: Random, rows: Row[], share: number): Row[] {
  const copy = rows.filter(() => !random.chance(share)).map((row) => [...row]);
  for (const row of copy) if (random.chance(share)) row[2 + random.below(2)] = randomCell(random);
  for (let i = 0; i < 20; i++) if (random.chance(share)) copy.push([`new ${i}`, 'x', null, '']);
  for (let i = copy.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [copy[i], copy[j]] = [copy[j]!, copy[i]!];
  }
  return copy;
}

function compare(layout: RowLayout, left: Row[], right: Row[], limit = 1000, memoryRows = 100_000) {
  const source = new BucketSums(layout);
  const destination = new BucketSums(layout);
  for (const row of left) source.add(row);
  for (const row of right) destination.add(row);
  const selection = selectRows(source, source.differing(destination), memoryRows);
  const rows = new RowDifferences(layout, names, selection, limit);
  for (const row of left) rows.addSource(row);
  for (const row of right) rows.addDestination(row);
  const search = rows.startKeys();
  for (const row of left) search.addSource(row);
  const { missing, extra, different } = rows;
  return { source, destination, counts: { missing, extra, different }, keys: search.keys, selection };
}

/** The obvious way. */
function twin(layout: RowLayout, left: Row[], right: Row[]) {
  const identity = (row: Row) =>
    JSON.stringify((layout.key.length > 0 ? layout.key : layout.all).map((i) => row[i]));
  const found = { missing: [] as string[], extra: [] as string[], different: [] as string[] };
  const held = new Map<string, string[]>();
  for (const row of right) held.set(identity(row), [...(held.get(identity(row)) ?? []), JSON.stringify(row)]);
  for (const row of left) {
    const rows = held.get(identity(row));
    if (!rows?.length) found.missing.push(identity(row));
    else if (rows.pop() !== JSON.stringify(row)) found.different.push(identity(row));
  }
  for (const [key, rows] of held) for (const _ of rows) found.extra.push(key);
  return found;
}

function hashOf(rows: Row[]): string {
  const hash = new RowHash();
  for (const row of rows) hash.add(row);
  return hash.hex;
}

describe.each([
  ['with a key', keyed],
  ['without a key', keyless],
])('a table %s', (_, layout) => {
  test.each(seeds)('finds exactly the rows that differ (seed %i)', (seed) => {
    const random = generator(seed);
    const left = randomTable(random, layout);
    const right = disturbed(random, left, [0, 0.01, 0.2][seed % 3]!);
    const result = compare(layout, left, right);
    const expected = twin(layout, left, right);
    expect(result.source.hex).toBe(hashOf(left));
    expect(result.destination.hex).toBe(hashOf(right));
    expect(result.counts).toEqual({
      missing: expected.missing.length,
      extra: expected.extra.length,
      different: expected.different.length,
    });
    for (const kind of ['missing', 'extra', 'different'] as const) {
      const shown = result.keys
        .filter((key) => key.kind === kind)
        .flatMap(({ key, count }) => Array<string>(count).fill(JSON.stringify(Object.values(key))));
      expect(shown.sort()).toEqual(expected[kind].sort());
    }
    expect(result.keys.every(({ kind, columns }) => (kind === 'different') === columns.length > 0)).toBe(
      true,
    );
    expect(result.selection.whole).toBe(true);
  });

  test.each(seeds.slice(0, 10))('counts are lower bounds where memory ends (seed %i)', (seed) => {
    const random = generator(seed);
    const left = randomTable(random, layout);
    const right = disturbed(random, left, 0.5);
    const { counts, keys, selection } = compare(layout, left, right, 5, 20);
    const expected = twin(layout, left, right);
    expect(keys.length).toBeLessThanOrEqual(5);
    expect(counts.missing).toBeLessThanOrEqual(expected.missing.length);
    expect(counts.extra).toBeLessThanOrEqual(expected.extra.length);
    expect(counts.different).toBeLessThanOrEqual(expected.different.length);
    if (left.length > 200) expect(selection.whole).toBe(false);
  });

  test('the order of rows has no say, one changed cell has', () => {
    const random = generator(7);
    const left = randomTable(random, layout);
    expect(compare(layout, left, [...left].reverse()).source.differing(sums(layout, left))).toEqual([]);
    const changed = left.map((row) => [...row]);
    changed[0]![3] = 'something else';
    const differing = sums(layout, left).differing(sums(layout, changed));
    expect(differing.length).toBe(layout.key.length > 0 ? 1 : 2);
  });
});

function sums(layout: RowLayout, rows: Row[]): BucketSums {
  const result = new BucketSums(layout);
  for (const row of rows) result.add(row);
  return result;
}

test('cells next to each other, NULL and the empty text are not confused', () => {
  const rows: Row[] = [
    ['a', 'b'],
    ['ab', ''],
    ['', 'ab'],
    ['ab', null],
    [null, 'ab'],
    ['1:a', 'b'],
    ['n;', ''],
  ];
  expect(new Set(rows.map((row) => digest(cellsText(row, [0, 1])))).size).toBe(rows.length);
});

test('lanes of a digest are its 32-bit words', () => {
  const bytes = Buffer.from(digest('x'), 'latin1');
  expect([0, 1, 2, 3].map((lane) => digestLane(digest('x'), lane))).toEqual(
    [0, 4, 8, 12].map((at) => bytes.readUInt32BE(at)),
  );
});

test('keys that count up fill all buckets evenly', () => {
  const counts = new Array<number>(bucketCount).fill(0);
  for (let i = 0; i < bucketCount * 100; i++) counts[spread(cellsText([String(i)], [0])) % bucketCount]!++;
  expect(Math.min(...counts)).toBeGreaterThan(50);
  expect(Math.max(...counts)).toBeLessThan(160);
});

test('a thousand missing rows do not hide the row that differs', () => {
  const left = Array.from({ length: 1001 }, (_, i): Row => [String(i), 'k', 'v', null]);
  const { keys, counts } = compare(keyed, left, [['1000', 'k', 'other', null]], 4);
  expect(counts).toEqual({ missing: 1000, extra: 0, different: 1 });
  expect(keys.map(({ kind }) => kind)).toEqual(['missing', 'missing', 'missing', 'different']);
  expect(keys[3]).toMatchObject({ key: { a: '1000', b: 'k' }, columns: ['c'] });
});

test.each(seeds)('COPY text is read whatever the chunks (seed %i)', (seed) => {
  const random = generator(seed);
  const rows = Array.from({ length: random.below(60) }, (): Row => [randomCell(random), randomCell(random)]);
  const bytes = Buffer.from(rows.map((row) => `${row.map(copyText).join('\t')}\n`).join(''));
  const lines = new CopyLines(2);
  const read: Row[] = [];
  for (let at = 0; at < bytes.length; ) {
    const size = 1 + random.below(random.chance(0.5) ? 3 : 200);
    read.push(...lines.take(bytes.subarray(at, at + size)));
    at += size;
  }
  expect(read).toEqual(rows);
});

/** As Postgres' CopyAttributeOutText. */
function copyText(cell: string | null): string {
  if (cell === null) return '\\N';
  const letters: Record<string, string> = {
    '\b': 'b',
    '\f': 'f',
    '\n': 'n',
    '\r': 'r',
    '\t': 't',
    '\v': 'v',
    '\\': '\\',
  };
  return cell.replace(/[\b\f\n\r\t\v\\]/g, (character) => `\\${letters[character]}`);
}
