/** What the mirror's topics hold, as a consumer that knows nothing of the sink reads them; and what it refuses. */
import kafkajs from 'kafkajs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { RefusedRows } from '../../src/connector/failure.ts';
import type { OptionValues, RowEvent } from '../../src/connector/sink.ts';
import { at, column, event, openSink, shapeOf, Target, users, windowOf } from './kafka-sink-harness.ts';

let target: Target;
beforeAll(async () => {
  target = await Target.start();
});
afterAll(async () => {
  await target?.stop();
});

const position = (n: number) => at(1000, n);

/** Two rows, one changed partly, one with another key, one deleted. */
const changes: RowEvent[] = [
  event('c', position(1), { key: ['1'], values: ['1', 'Ann', 'long text'] }),
  event('c', position(2), { key: ['2'], values: ['2', 'Ben', null] }),
  event('u', position(3), { key: ['1'], values: ['1', 'Anna', undefined] }),
  event('d', position(4), { key: ['2'], values: ['2', undefined, undefined] }),
  event('c', position(4), { key: ['3'], values: ['3', 'Ben', null], previousKey: ['2'] }),
];

async function mirrored(own: OptionValues, events = changes, shape = users) {
  const { prefix, options } = target.options(own);
  const { sink, logs } = await openSink(options);
  await sink.appendWindow(windowOf(1, [{ shape, events }]));
  await sink.close();
  const topic = `${prefix}.${shape.schema}.${shape.name}`;
  const records = await target.consume(topic);
  // Of one Position the delete comes first; partitions are read in any order.
  const place = ({ headers, value }: (typeof records)[0]) =>
    `${headers!['tidemark.position']} ${value === null || value.includes('"__deleted":"true"') ? 0 : 1} ${value === null ? 1 : 0}`;
  records.sort((left, right) => (place(left) < place(right) ? -1 : 1));
  return { prefix, options, topic, records, logs };
}

const text = (bytes: Buffer | null) => (bytes === null ? null : JSON.parse(bytes.toString()));

test('JSON: rows flat at the top level, the key apart, a delete as a null record', async () => {
  const { records } = await mirrored({});
  expect(records.map(({ key, value }) => [text(key), text(value)])).toEqual([
    [
      { id: 1 },
      {
        id: 1,
        name: 'Ann',
        bio: 'long text',
        __op: 'c',
        __position: position(1),
        __commit_time: 1_700_000_000_000_001,
      },
    ],
    [
      { id: 2 },
      {
        id: 2,
        name: 'Ben',
        bio: null,
        __op: 'c',
        __position: position(2),
        __commit_time: 1_700_000_000_000_001,
      },
    ],
    // Not null: a field that is not there.
    [
      { id: 1 },
      { id: 1, name: 'Anna', __op: 'u', __position: position(3), __commit_time: 1_700_000_000_000_001 },
    ],
    [{ id: 2 }, null],
    [
      { id: 3 },
      {
        id: 3,
        name: 'Ben',
        bio: null,
        __op: 'c',
        __position: position(4),
        __commit_time: 1_700_000_000_000_001,
      },
    ],
  ]);
  expect(String(records[2]!.headers!['tidemark.unchanged'])).toBe('["bio"]');
  expect(String(records[4]!.headers!['tidemark.previous.key'])).toBe('["2"]');
  const partition = kafkajs.Partitioners.DefaultPartitioner();
  const partitionMetadata = [0, 1, 2].map((partitionId) => ({ partitionId, leader: 1 }) as never);
  for (const { topic, key, partition: found } of records)
    expect(found).toBe(partition({ topic, partitionMetadata, message: { key, value: null } }));
});

test.each([
  ['rewrite', [{ id: 2, name: null, bio: null, __op: 'd', __deleted: 'true' }]],
  ['both', [{ id: 2, name: null, bio: null, __op: 'd', __deleted: 'true' }, null]],
])('delete.mode %s', async (mode, wanted) => {
  const { records } = await mirrored({ 'delete.mode': mode, 'metadata.fields': ['op'] });
  const ofDelete = records.filter(
    ({ headers, key }) => String(headers!['tidemark.position']) === position(4) && text(key).id === 2,
  );
  expect(ofDelete.map(({ value }) => text(value))).toEqual(wanted);
  expect(text(records[0]!.value)).toMatchObject({ id: 1, __deleted: 'false' });
});

test("JSON with Connect's schemas: logical types, and the placeholder for what did not change", async () => {
  const shape = shapeOf('typed', [
    column('id', 'bigint', 1, true),
    column('amount', 'numeric(6,2)', 2),
    column('day', 'date', 3),
    column('seen', 'timestamp(3) without time zone', 4),
    column('micros', 'timestamp with time zone', 5),
    column('note', 'text', 6),
    column('raw', 'bytea', 7),
  ]);
  const values = [
    '9007199254740993',
    '-1234.56',
    '1969-12-31',
    '1970-01-02 00:00:00.5',
    '2024-01-01 00:00:00.000001+00',
    undefined,
    '\\x00ff',
  ];
  const odd = ['1', 'NaN', 'infinity', '-infinity', 'infinity', null, null];
  const { records } = await mirrored(
    { 'schemas.enable': true, 'metadata.fields': [] },
    [
      event('u', position(1), { key: ['9007199254740993'], values }),
      event('c', position(2), { key: ['1'], values: odd }),
    ],
    shape,
  );
  const { schema, payload } = JSON.parse(
    records[0]!.value!.toString().replace('9007199254740993', '"9007199254740993"'),
  );
  expect(payload).toEqual({
    id: '9007199254740993',
    amount: Buffer.from([0xfe, 0x1d, 0xc0]).toString('base64'),
    day: -1,
    seen: 86_400_500,
    micros: '2024-01-01 00:00:00.000001+00',
    note: '__debezium_unavailable_value',
    raw: 'AP8=',
  });
  expect(schema.fields[1]).toEqual({
    type: 'bytes',
    name: 'org.apache.kafka.connect.data.Decimal',
    version: 1,
    parameters: { scale: '2', 'connect.decimal.precision': '6' },
    optional: true,
    field: 'amount',
  });
  expect(text(records[1]!.value).payload).toMatchObject({
    amount: null,
    day: null,
    seen: null,
    micros: 'infinity',
  });
  expect(JSON.parse(String(records[1]!.headers!['tidemark.exact']))).toEqual({
    amount: 'NaN',
    day: 'infinity',
    seen: '-infinity',
  });
});

test('truncates and ends of snapshots are told in the control topic, in the same transaction, and logged once', async () => {
  const { prefix, logs } = await mirrored({ 'control.evictions': true }, [
    ...changes,
    event('t', position(5)),
    event('t', position(6)),
    event('s', position(7), { since: position(5) }),
    event('e', position(8), { key: ['3'] }),
  ]);
  const told = (await target.consume(`${prefix}.control`)).map(({ value }) => text(value));
  const common = {
    schema: 'app',
    table: 'users',
    topic: `${prefix}.app.users`,
    commit_time: '1700000000000001',
  };
  expect(told).toEqual([
    { op: 't', ...common, position: position(5) },
    { op: 't', ...common, position: position(6) },
    { op: 's', ...common, position: position(7), since: position(5) },
    { op: 'e', ...common, position: position(8), key: [['id', '3']] },
  ]);
  expect(logs.filter((line) => line.includes('a truncate'))).toHaveLength(1);
});

test('a table without a key: deletes and updates take the old row away, in one partition', async () => {
  const shape = shapeOf('lines', [column('a', 'text', 1)]);
  const { records } = await mirrored(
    { 'metadata.fields': [] },
    [
      event('c', position(1), { values: ['x'] }),
      event('u', position(2), { values: ['y'], before: ['x'] }),
      event('d', position(3), { values: ['y'], before: ['y'] }),
    ],
    shape,
  );
  expect(records.map(({ key, value, partition }) => [key, text(value), partition])).toEqual([
    [null, { a: 'x', __deleted: 'false', __op: 'c' }, 0],
    [null, { a: 'x', __deleted: 'true', __op: 'd' }, 0],
    [null, { a: 'y', __deleted: 'false', __op: 'u' }, 0],
    [null, { a: 'y', __deleted: 'true', __op: 'd' }, 0],
  ]);
});

test('a topic that is missing and may not be made is TM303 with the command, and delivery goes on once it is there', async () => {
  const { prefix, options } = target.options({ 'topic.create': false });
  const { sink } = await openSink(options);
  const window = windowOf(1, [{ shape: users, events: changes }]);
  const admin = target.kafka.admin();
  await admin.connect();
  for (const topic of [`${prefix}.progress`, `${prefix}.app.users`]) {
    await expect(sink.appendWindow(window)).rejects.toMatchObject({
      code: 'TM303',
      remedy: expect.stringContaining(`--topic ${topic} `),
    });
    await admin.createTopics({
      topics: [{ topic }, { topic: `${prefix}.control` }].filter(
        (each) => each.topic !== `${prefix}.control` || topic.endsWith('users'),
      ),
    });
  }
  await admin.disconnect();
  await sink.appendWindow(window);
  await sink.close();
});

test('two tables that would meet in one topic are TM405, also where the other one came in an earlier run', async () => {
  const { prefix, options } = target.options();
  const both = { ...options, 'topic.name': `${prefix}.all.${'$'}{table}` };
  const first = await openSink(both);
  await first.sink.appendWindow(windowOf(1, [{ shape: users, events: changes }]));
  await first.sink.close();
  const second = await openSink(both);
  const other = { ...users, schema: 'other', oid: 1001 };
  await expect(
    second.sink.appendWindow(
      windowOf(2, [
        { shape: other, events: [event('c', at(2000), { key: ['1'], values: ['1', null, null] })] },
      ]),
    ),
  ).rejects.toMatchObject({
    code: 'TM405',
    message: expect.stringContaining('app.users and other.users'),
  });
  await second.sink.close();
});

test('a column that has the name of a metadata field is TM405', async () => {
  const shape = shapeOf('odd', [column('id', 'integer', 1, true), column('__op', 'text', 2)]);
  await expect(mirrored({}, [], shape)).rejects.toMatchObject({
    code: 'TM405',
    message: expect.stringContaining('__op'),
  });
});

test('a registry that is down is TM304, one that finds a schema incompatible TM305 with the remedy', async () => {
  const { prefix, options } = target.options({ format: 'avro' });
  const { sink } = await openSink(options);
  await sink.appendWindow(windowOf(1, [{ shape: users, events: changes }]));
  const retyped = {
    ...users,
    columns: users.columns.map((each) => (each.name === 'name' ? { ...each, type: 'integer' } : each)),
  };
  const second = windowOf(2, [
    { shape: retyped, events: [event('c', at(2000), { key: ['9'], values: ['9', '5', null] })] },
  ]);
  const compatibility = { method: 'PUT', headers: { 'content-type': 'application/json' } };
  const setting = `${target.stack.environment.TIDEMARK_REGISTRY_URL}/config/${prefix}.app.users-value`;
  await fetch(setting, { ...compatibility, body: '{"compatibility":"BACKWARD"}' });
  await expect(sink.appendWindow(second)).rejects.toMatchObject({
    code: 'TM305',
    remedy: expect.stringContaining(setting),
  });
  await fetch(setting, { ...compatibility, body: '{"compatibility":"NONE"}' });
  await target.stack.stopPart('registry');
  try {
    await expect(sink.appendWindow(second)).rejects.toMatchObject({ code: 'TM304', retry: 'transient' });
  } finally {
    await target.stack.startPart('registry');
  }
  await sink.appendWindow(second);
  await sink.close();
});

test('a row that its topic does not take is named, and nothing of its Window is seen', async () => {
  const { prefix, options } = target.options({
    'topic.config': ['max.message.bytes=4000'],
    'compression.type': 'none',
  });
  const { sink } = await openSink(options);
  const large = event('c', position(6), { key: ['6'], values: ['6', 'x'.repeat(10_000), null] });
  const refused = sink.appendWindow(windowOf(1, [{ shape: users, events: [...changes, large] }]));
  await expect(refused).rejects.toBeInstanceOf(RefusedRows);
  await expect(refused).rejects.toMatchObject({ rows: [{ position: position(6) }] });
  expect(await target.consume(`${prefix}.app.users`)).toEqual([]);
  await sink.appendWindow(windowOf(1, [{ shape: users, events: changes }]));
  await sink.close();
  expect(await target.consume(`${prefix}.app.users`)).toHaveLength(changes.length);
});

test('a progress topic of another destination is refused', async () => {
  const { options } = target.options();
  const first = await openSink(options);
  await first.sink.appendWindow(windowOf(1, [{ shape: users, events: changes }]));
  await first.sink.close();
  const { kafkaSink } = await import('../../connectors/sinks/kafka/index.ts');
  const context = {
    sourceId: 'test',
    destination: 'another',
    scratchDirectory: '',
    log: () => {},
    failpoint: async () => {},
  };
  const other = await kafkaSink.open(context, options);
  if (other.mode !== 'append') throw new Error('it appends');
  await expect(other.held('*')).rejects.toMatchObject({ code: 'TM101' });
  await other.close();
});
