/** Delivery into the real Postgres sink: the replica is the table, across a restart in the middle. */
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { postgresSink } from '../../connectors/sinks/postgres/index.ts';
import type { OptionValues } from '../../src/connector/sink.ts';
import { deliver, type Harness, marksAt, startHarness, until } from './deliver-harness.ts';
import { type Change, shape } from './deliver-records.ts';
import type { TableChange } from './deliver-source.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(async () => {
  await harness?.stop();
});

test('a Postgres replica follows the tables, row for row', async () => {
  await harness.pool.query('create database replica');
  const url = new URL(harness.stack.environment.TIDEMARK_SOURCE_URL!);
  url.pathname = '/replica';
  const replica = new pg.Client({ connectionString: url.href });
  await replica.connect();
  const source = harness.source();
  await source.open([shape('notes', ['id', 'title', 'body']), shape('lines', ['text', 'more'], false)]);
  const defaults = Object.fromEntries(
    Object.entries(postgresSink.options).map(([name, field]) => [name, field.default ?? null]),
  ) as OptionValues;
  const options = { ...defaults, 'connection.url': url.href };
  const config = harness.config(source, [{ kind: postgresSink.name, options, windowMaxRecords: 60 }]);
  const notes = source.tables.get('notes')!.records;
  const change = (made: Change): TableChange => ({ table: 'notes', change: made });
  const read = async (table: string, columns: string) => {
    const { rows } = await replica.query({ text: `select ${columns} from app.${table}`, rowMode: 'array' });
    return (rows as unknown[][]).map((row) => JSON.stringify(row)).sort();
  };
  let delivery = await deliver(config, postgresSink);
  try {
    for (let round = 0; round < 12; round++) {
      const first = round * 10 + 1;
      const changes = [];
      for (let id = first; id < first + 10; id++)
        changes.push(change({ op: 'c', row: [String(id), `t${id}`, `body ${id}`] }));
      if (round > 0) {
        // All of these rows were there before this Window or came with it.
        changes.push(change({ op: 'u', row: [String(first - 1), `again ${round}`, undefined] }));
        changes.push(change({ op: 'd', row: [String(first - 2), null, null] }));
        changes.push(
          change({ op: 'k', oldKey: String(first - 3), row: [String(10_000 + first), 'moved', undefined] }),
        );
      }
      changes.push({ table: 'lines', change: { op: 'c', row: ['same', null] } } as TableChange);
      if (round % 3 === 2)
        changes.push({ table: 'lines', change: { op: 'd', row: ['same', null] } } as TableChange);
      await source.commit(changes);
      if (round === 5) {
        await delivery.stop();
        delivery = await deliver(config, postgresSink);
      }
    }
    await until('replica', () => marksAt(delivery, source.position), 120_000);
    expect(await read('notes', 'id::text, title, body')).toEqual(notes.dump());
    expect(await read('lines', 'text, more')).toEqual(source.tables.get('lines')!.records.dump());
    await source.commit([
      { table: 'notes', change: { op: 't' } },
      change({ op: 'c', row: ['1', 'fresh', null] }),
    ]);
    await until('truncate', () => marksAt(delivery, source.position), 120_000);
    expect(await read('notes', 'id::text, title, body')).toEqual(notes.dump());
  } finally {
    await delivery.stop();
    await source.close();
    await replica.end();
  }
});
