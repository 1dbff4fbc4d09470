import { describe, expect, test } from 'vitest';
import { reactTo } from '../../src/deliver/failure-policy.ts';
import { assignTopics } from '../../src/deliver/partition-assigner.ts';
import { matchTopics, unitsOf } from '../../src/deliver/unit-topics.ts';
import { TidemarkError } from '../../src/platform/errors.ts';
import { random } from './deliver-random.ts';

const member = (id: string, subscribed: string[], owned: string[] = []) => ({
  id,
  subscribed: new Set(subscribed),
  owned: new Set(owned),
});

describe('assignTopics', () => {
  const topics = ['a', 'b', 'c', 'd', 'e'];

  test('a destination that moves all tables together has one worker, and keeps it', () => {
    const first = assignTopics('destination', [member('m1', topics), member('m2', topics)], topics);
    expect(new Set(first.values()).size).toBe(1);
    const owner = first.get('a')!;
    const other = owner === 'm1' ? 'm2' : 'm1';
    const next = assignTopics(
      'destination',
      [member('m0', topics), member(other, topics), member(owner, topics, topics)],
      topics,
    );
    expect([...new Set(next.values())]).toEqual([owner]);
  });

  test('a worker that knows a new table goes before one that does not', () => {
    const assigned = assignTopics(
      'destination',
      [member('m1', ['a'], ['a']), member('m2', ['a', 'b'])],
      ['a', 'b'],
    );
    expect([...assigned]).toEqual([
      ['a', 'm2'],
      ['b', 'm2'],
    ]);
  });

  test('tables are spread evenly, stay where they are, and go only to those who subscribed', () => {
    const r = random();
    for (let run = 0; run < 300; run++) {
      const all = Array.from({ length: 1 + r.integer(12) }, (_, i) => `t${i}`);
      const members = Array.from({ length: 1 + r.integer(4) }, (_, i) => member(`m${i}`, all));
      const context = `seed ${r.seed}, run ${run}`;
      const before = assignTopics('table', members, all);
      expect(before.size, context).toBe(all.length);
      const load = members.map(({ id }) => [...before.values()].filter((owner) => owner === id).length);
      expect(Math.max(...load) - Math.min(...load), context).toBeLessThanOrEqual(1);
      // The same members again: nothing moves.
      const again = members.map(({ id }) =>
        member(
          id,
          all,
          all.filter((topic) => before.get(topic) === id),
        ),
      );
      expect([...assignTopics('table', again, all)].sort(), context).toEqual([...before].sort());
    }
  });
});

test('topics of the subscribed tables, and their Units', () => {
  const topics = [
    'p.progress',
    'p.parked',
    'p.app.notes',
    'p.app.my_table',
    'p.other.x',
    'q.app.notes',
    'p.apple.x',
  ];
  expect(matchTopics('p', ['app.*'], topics)).toEqual(['p.app.my_table', 'p.app.notes']);
  expect(matchTopics('p', ['app."my table"', 'other.x'], topics)).toEqual(['p.app.my_table', 'p.other.x']);
  expect([...unitsOf('table', 'p', ['p.app.notes'])]).toEqual([['app.notes', ['p.app.notes']]]);
  expect([...unitsOf('destination', 'p', ['p.app.notes', 'p.b.c'])]).toEqual([
    ['*', ['p.app.notes', 'p.b.c']],
  ]);
  expect(unitsOf('destination', 'p', []).size).toBe(0);
});

test('transient errors are retried with growing delay, others slowly, a fenced worker leaves', () => {
  const transient = new TidemarkError('TM401', '');
  expect(reactTo(transient, 0, () => 0.999).delayMs).toBe(200);
  expect(reactTo(transient, 0, () => 0).delayMs).toBe(100);
  expect(reactTo(transient, 30, () => 0.9999).delayMs).toBeLessThanOrEqual(30_000);
  expect(reactTo(transient, 30, () => 0).delayMs).toBe(15_000);
  expect(reactTo(new TidemarkError('TM404', ''), 0, () => 1).delayMs).toBe(30_000);
  expect(reactTo(new TidemarkError('TM403', ''), 5)).toEqual({ leave: true, delayMs: 0 });
});

test('a topic for one destination is read by it alone, with the table that it belongs to', () => {
  const topics = ['p.app.t', 'p.app.t.for.lake', 'p.app.u', 'p.app.u.for.replica', 'p.app.x.for.lake'];
  // Nothing says that the last one is not a table of that name.
  expect(matchTopics('p', ['app.*'], topics, 'lake')).toEqual([
    'p.app.t',
    'p.app.t.for.lake',
    'p.app.u',
    'p.app.x.for.lake',
  ]);
  expect(matchTopics('p', ['app.u'], topics, 'lake')).toEqual(['p.app.u']);
  expect(matchTopics('p', ['app.t', 'app.u'], topics)).toEqual(['p.app.t', 'p.app.u']);
  expect([...unitsOf('table', 'p', topics.slice(0, 3))]).toEqual([
    ['app.t', ['p.app.t', 'p.app.t.for.lake']],
    ['app.u', ['p.app.u']],
  ]);
  const tables = ['p.app.t', 'p.app.u', 'p.app.v'];
  const all = [...tables, 'p.app.t.for.lake', 'p.app.u.for.lake'];
  const members = [member('m1', all, ['p.app.u']), member('m2', tables, ['p.app.t'])];
  const assigned = assignTopics('table', members, all);
  expect(assigned.get('p.app.u.for.lake')).toBe('m1');
  // Its table's owner does not know of it yet.
  expect(assigned.get('p.app.t')).toBe('m2');
  expect(assigned.has('p.app.t.for.lake')).toBe(false);
});
