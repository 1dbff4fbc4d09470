/** Delivery over a real Kafka, registry and control database, with a strict destination in memory. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { deliver, type Harness, marksAt, startHarness, until } from './deliver-harness.ts';
import { MemoryStore, memorySink } from './deliver-memory-sink.ts';
import { shape } from './deliver-records.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(async () => {
  await harness?.stop();
});

const notes = shape('notes', ['id', 'title', 'body']);
const lines = shape('lines', ['text', 'more'], false);

describe('windows', () => {
  test('every kind of change arrives as the destination state', async () => {
    const source = harness.source();
    await source.open([notes, lines]);
    const store = new MemoryStore();
    const delivery = await deliver(harness.config(source, [{}]), memorySink(store));
    try {
      await source.commit([
        { table: 'notes', change: { op: 'c', row: ['1', 'a', 'long'] } },
        { table: 'notes', change: { op: 'c', row: ['2', 'b', null] } },
        { table: 'lines', change: { op: 'c', row: ['x', null] } },
        { table: 'lines', change: { op: 'c', row: ['x', null] } },
      ]);
      await until('first rows', () => marksAt(delivery, source.position));
      expect(store.dump()).toEqual(source.expected());
      await source.aborted('notes', [['9', 'never', null]]);
      await source.commit([
        { table: 'notes', change: { op: 'u', row: ['1', 'a2', undefined] } },
        { table: 'notes', change: { op: 'k', oldKey: '1', row: ['7', 'moved', undefined] } },
        { table: 'notes', change: { op: 'd', row: ['2', null, null] } },
        { table: 'lines', change: { op: 'u', before: ['x', null], row: ['y', null] } },
      ]);
      await until('changes', () => marksAt(delivery, source.position));
      expect(store.dump()).toEqual(source.expected());
      await source.commit([
        { table: 'notes', change: { op: 't' } },
        { table: 'notes', change: { op: 'c', row: ['3', 'after', null] } },
        { table: 'lines', change: { op: 't' } },
      ]);
      await until('truncate', () => marksAt(delivery, source.position));
      expect(store.dump()).toEqual(source.expected());
    } finally {
      await delivery.stop();
      await source.close();
    }
  });
});
