/** Which topics and subjects are a source's own, for `teardown --topics`. */
import { expect, test } from 'vitest';
import { ownedBy } from '../../src/publish/topics.ts';

const of = (prefix: string) =>
  ['progress', 'parked', 'quarantine', 'app.orders', 'app.orders.for.lake'].map(
    (name) => `${prefix}.${name}`,
  );

test("what a source whose prefix begins with another's has is its own", () => {
  const topics = [...of('shop'), ...of('shop.eu'), ...of('shopping'), 'shop.eu.app.orders.evictions'];
  expect(topics.filter(ownedBy('shop', topics))).toEqual(of('shop'));
  expect(topics.filter(ownedBy('shop.eu', topics))).toEqual([
    ...of('shop.eu'),
    'shop.eu.app.orders.evictions',
  ]);
  expect(['shop.app.orders-key', 'shop.eu.app.orders-key'].filter(ownedBy('shop', topics))).toEqual([
    'shop.app.orders-key',
  ]);
});

test('a table that is called as one of the three is a table', () => {
  const topics = [...of('shop'), 'shop.app.progress', 'shop.app.parked'];
  expect(topics.filter(ownedBy('shop', topics))).toEqual(topics);
});
