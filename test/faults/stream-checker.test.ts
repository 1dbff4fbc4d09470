/** The checker itself: a stream as it should be passes, and every invariant it names is missed when it is broken. */
import { expect, test } from 'vitest';
import { formatPosition, type Position } from '../../src/connector/position.ts';
import type { Progress } from '../../src/publish/progress.ts';
import { header } from '../../src/publish/record-format.ts';
import { type Operation, StreamCheck } from '../fixtures/stream-checker.ts';

interface Written {
  topic: string;
  partition: number;
  op: Operation | 'null';
  lsn: number;
  ordinal: number;
  key?: string | null;
}

const schemaId = 7;
const at = (lsn: number, ordinal: number) => formatPosition({ epoch: 1, lsn: BigInt(lsn), ordinal });
const write = (
  topic: string,
  partition: number,
  op: Written['op'],
  lsn: number,
  ordinal: number,
  key: string | null = 'k',
): Written => ({ topic, partition, op, lsn, ordinal, key });

/** Two topics of two partitions; Transactions 10 (three Changes), 20 (a truncate and an insert) and 30 (a delete). */
const good = (): Written[] => [
  write('p.a', 0, 'c', 10, 1),
  write('p.b', 1, 'c', 10, 2),
  write('p.a', 0, 'u', 10, 3),
  write('p.a', 0, 't', 20, 1, null),
  write('p.a', 1, 't', 20, 1, null),
  write('p.b', 0, 'c', 20, 2),
  write('p.b', 1, 'd', 30, 1),
  write('p.b', 1, 'null', 30, 1),
];

const committed = new Map([
  ['000000000000000A', 3],
  ['0000000000000014', 2],
  ['000000000000001E', 1],
]);

const progressAt = (
  position: Position,
  a: [number, number],
  b: [number, number],
  boundary = true,
): Progress => ({
  kind: 'batch',
  sourceId: 's',
  position,
  boundary,
  ackLsn: 0n,
  commitTimeUs: 0n,
  writtenAtUs: 0n,
  systemIdentifier: '1',
  timeline: 1,
  writer: 'w',
  endOffsets: { 'p.a': a.map(BigInt), 'p.b': b.map(BigInt) },
  parked: {},
  snapshots: {},
});

/** The second lies inside a Transaction. */
const goodProgress = (): Progress[] => [
  progressAt(at(10, 3), [2, 0], [0, 1]),
  progressAt(at(20, 1), [3, 1], [0, 1], false),
  progressAt(at(20, 2), [3, 1], [1, 1]),
  progressAt(at(30, 1), [3, 1], [1, 3]),
];

function check(records: Written[], progress: Progress[], source = committed): string[] {
  const stream = new StreamCheck(
    'p.parked',
    new Map([[schemaId, (value) => value.toString('utf8', 5) as Operation]]),
  );
  const ends = new Map<string, bigint[]>([
    ['p.a', [0n, 0n]],
    ['p.b', [0n, 0n]],
  ]);
  for (const { topic, partition, op, lsn, ordinal, key } of records) {
    const value = op === 'null' ? null : Buffer.from(`\0\0\0\0\0${op}`);
    value?.writeUInt32BE(schemaId, 1);
    const offsets = ends.get(topic)!;
    const offset = offsets[partition]!;
    offsets[partition] = offset + 1n;
    stream.record(topic, partition, {
      key: key === null ? null : Buffer.from(key ?? 'k'),
      value,
      offset: String(offset),
      timestamp: '0',
      attributes: 0,
      headers: { [header.position]: Buffer.from(at(lsn, ordinal)), [header.format]: Buffer.from('1') },
    });
  }
  stream.endOfRecords();
  stream.progress(
    progress,
    [...ends].map(([topic, partitions]) => ({ topic, ends: partitions })),
  );
  stream.compareWithSource(source);
  return stream.violations;
}

test('a whole stream passes', () => {
  expect(check(good(), goodProgress())).toEqual([]);
});

const without = (index: number) => good().filter((_, i) => i !== index);
const twice = (index: number) => good().flatMap((each, i) => (i === index ? [each, each] : [each]));
const replaced = <T>(list: T[], index: number, by: T) => list.with(index, by);

test.each<[string, Written[], Progress[], RegExp]>([
  ['a lost Change', without(1), [], /has 2 ordinals, the highest is 3/],
  ['a lost last Change', without(2), [], /has 2 Changes in Kafka, 3 at the source/],
  ['a lost Transaction', without(0).slice(2), [], /of 3 Changes is not in Kafka/],
  ['a Change that is there twice', twice(0), [], /Position .* is there twice/],
  ['a Change twice in two partitions', [...good(), write('p.a', 1, 'c', 30, 1)], [], /is there twice/],
  ['a batch that is there twice', [...good(), ...good()], [], /Position .* after/],
  [
    'Changes out of order',
    [...good().slice(0, 2).reverse(), write('p.b', 1, 'c', 10, 1)],
    [],
    /Position .* after/,
  ],
  ['a truncate that misses a partition', without(4), [], /is in 1 of 2 partitions/],
  ['a truncate twice in a partition', twice(3), [], /twice|after/],
  ['a delete without its null record', without(7), [], /without its null record/],
  ['a null record without its delete', without(6), [], /does not belong to the delete/],
  [
    'a null record of another key',
    replaced(good(), 7, write('p.b', 1, 'null', 30, 1, 'x')),
    [],
    /does not belong to the delete/,
  ],
  [
    'a Transaction that the source never committed',
    [...good(), write('p.a', 0, 'c', 40, 1)],
    [],
    /never committed it/,
  ],
  [
    'records beyond the last Progress',
    good(),
    goodProgress().slice(0, 3),
    /ends at .*, the last Progress at/,
  ],
  [
    'Progress that goes back',
    good(),
    goodProgress().toSpliced(1, 0, goodProgress()[3]!),
    /Progress goes back/,
  ],
  [
    'an end offset beyond the end',
    good(),
    replaced(goodProgress(), 3, progressAt(at(30, 1), [3, 9], [1, 3])),
    /says that p.a\/1 ends at 9/,
  ],
  [
    'an end offset too high',
    good(),
    replaced(goodProgress(), 0, progressAt(at(10, 3), [3, 0], [0, 1])),
    /below the end offset/,
  ],
  [
    'an end offset too low',
    good(),
    replaced(goodProgress(), 0, progressAt(at(10, 3), [1, 0], [0, 1])),
    /beyond the end offset/,
  ],
  [
    'a boundary inside a Transaction',
    good(),
    replaced(goodProgress(), 1, progressAt(at(20, 1), [3, 1], [0, 1])),
    /lies inside a Transaction/,
  ],
])('%s is found', (_, records, progress, violation) => {
  const found = check(records, progress.length > 0 ? progress : goodProgress());
  expect(
    found.filter((each) => violation.test(each)),
    found.join('\n'),
  ).not.toEqual([]);
});
