/**
 * Other people's consumers: Kafka Connect with its own JsonConverter, and with Apicurio's Avro converter, and the JDBC
 * sink behind each, copy a mirrored table into Postgres: inserts, updates, deletes, another key.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { KafkaConnect } from '../fixtures/kafka-connect.ts';
import { at, column, event, openSink, shapeOf, Target, windowOf } from './kafka-sink-harness.ts';

let target: Target;
beforeAll(async () => {
  target = await Target.start(['postgres', 'kafka', 'registry']);
});
afterAll(async () => {
  await target?.stop();
});

const shape = shapeOf('orders', [
  column('id', 'bigint', 1, true),
  column('customer', 'text', 2),
  column('amount', 'numeric(12,2)', 3),
  column('day', 'date', 4),
  column('seen', 'timestamp(3) without time zone', 5),
  column('paid', 'boolean', 6),
  column('score', 'double precision', 7),
  column('raw', 'bytea', 8),
]);

const order = (id: string, customer: string, amount: string) => [
  id,
  customer,
  amount,
  '2024-02-29',
  '2024-02-29 12:34:56.789',
  't',
  '0.1',
  '\\x00ff10',
];

const windows = [
  [
    event('c', at(1000, 1), { key: ['1'], values: order('1', 'Ann', '10.50') }),
    event('c', at(1000, 2), { key: ['2'], values: order('2', "Ben's 🌊", '-99999999.99') }),
    event('c', at(1000, 3), { key: ['9007199254740993'], values: order('9007199254740993', '', '0.00') }),
  ],
  [
    event('u', at(2000, 1), { key: ['1'], values: order('1', 'Anna', '11.00') }),
    event('d', at(2000, 2), { key: ['2'], values: ['2', ...Array(7).fill(undefined)] }),
    event('d', at(2000, 3), {
      key: ['9007199254740993'],
      values: ['9007199254740993', ...Array(7).fill(undefined)],
    }),
    event('c', at(2000, 3), {
      key: ['7'],
      values: order('7', 'moved', '0.07'),
      previousKey: ['9007199254740993'],
    }),
  ],
];

const wanted = [
  ['1', 'Anna', '11.00', '2024-02-29', '2024-02-29 12:34:56.789', 'true', '0.1', '\\x00ff10'],
  ['7', 'moved', '0.07', '2024-02-29', '2024-02-29 12:34:56.789', 'true', '0.1', '\\x00ff10'],
];

const json = (which: string) => ({
  [`${which}.converter`]: 'org.apache.kafka.connect.json.JsonConverter',
  [`${which}.converter.schemas.enable`]: 'true',
});

test('the JDBC sink keeps the mirrored table, from Avro and from JSON with schemas', async () => {
  const formats = { avro: { format: 'avro' }, json: { format: 'json', 'schemas.enable': true } } as const;
  const prefixes: Record<string, string> = {};
  const source = new URL(target.stack.environment.TIDEMARK_SOURCE_URL!);
  const connectors: Record<string, Record<string, string>> = {};
  for (const [name, own] of Object.entries(formats)) {
    const { prefix, options } = target.options(own);
    prefixes[name] = prefix;
    const { sink } = await openSink(options);
    for (const [i, events] of windows.entries())
      await sink.appendWindow(windowOf(i + 1, [{ shape, events }]));
    await sink.close();
    connectors[name] = {
      'connector.class': 'io.debezium.connector.jdbc.JdbcSinkConnector',
      'tasks.max': '1',
      topics: `${prefix}.app.orders`,
      'connection.url': `jdbc:postgresql://${source.hostname}:${source.port}${source.pathname}`,
      'connection.username': source.username,
      'connection.password': decodeURIComponent(source.password),
      'insert.mode': 'upsert',
      'delete.enabled': 'true',
      'primary.key.mode': 'record_key',
      'schema.evolution': 'basic',
      'collection.name.format': `orders_${name}`,
      'use.time.zone': 'UTC',
      'consumer.override.isolation.level': 'read_committed',
      'consumer.override.auto.offset.reset': 'earliest',
      ...(name === 'json' ? { ...json('key'), ...json('value') } : {}),
    };
  }
  const connect = await KafkaConnect.start({
    directory: join(target.directory, 'connect'),
    brokers: target.brokers,
    registryUrl: target.stack.environment.TIDEMARK_REGISTRY_URL!,
    connectors,
  });
  const client = new pg.Client(source.href);
  await client.connect();
  try {
    await connect.running();
    const deadline = performance.now() + 60_000;
    for (;;) {
      await connect.check();
      const copies = await Promise.all(Object.keys(formats).map((name) => copyOf(client, `orders_${name}`)));
      const done = copies.every((copy) => JSON.stringify(copy) === JSON.stringify(wanted));
      if (done || performance.now() > deadline) {
        for (const copy of copies) expect(copy).toEqual(wanted);
        break;
      }
      await sleep(300);
    }
  } finally {
    await client.end();
    await connect.stop();
  }
});

async function copyOf(client: pg.Client, table: string): Promise<string[][] | null> {
  const { rows: there } = await client.query<{ there: boolean }>(
    'select to_regclass($1) is not null as there',
    [table],
  );
  if (!there[0]!.there) return null;
  const { rows } = await client.query<string[]>({
    rowMode: 'array',
    text: `select id::text, customer, amount::text, day::text, seen::text, paid::text, score::text, raw::text from ${table} order by id`,
  });
  return rows;
}
