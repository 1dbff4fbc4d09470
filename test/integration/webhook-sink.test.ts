/** The webhook sink over a real HTTP server: what arrives, in which order, under which names, and whether it is signed. */
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { webhookSink } from '../../connectors/sinks/webhook/index.ts';
import { TestEndpoint } from '../fixtures/webhook-endpoint.ts';
import {
  at,
  contextOf,
  event,
  failure,
  insert,
  inserts,
  newSecret,
  openSink,
  optionValues,
  shapeOf,
  windowOf,
} from './webhook-harness.ts';

let endpoint: TestEndpoint;
const secret = newSecret();
const here = (more = {}) => ({ url: endpoint.url(), secret, ...more });
beforeEach(async () => {
  endpoint = await TestEndpoint.start(secret);
});
afterEach(() => endpoint.stop());

test('a Window arrives whole, in order, signed, and its Receipt says how much it was', async () => {
  const { sink } = await openSink(here({ 'batch.max.events': 10 }));
  const receipt = await sink.sendWindow(windowOf(inserts(25, 'ünï')));
  await sink.close();
  expect(endpoint.deliveries.map(({ events }) => events.length)).toEqual([10, 10, 5]);
  expect(endpoint.deliveries.every(({ verified }) => verified)).toBe(true);
  expect(endpoint.events.map(({ key }) => key.id)).toEqual(inserts(25).map(({ key }) => key[0]));
  expect(endpoint.deliveries[0]!.headers['content-type']).toBe('application/json');
  expect(endpoint.connections).toBeLessThanOrEqual(2);
  expect(receipt).toMatchObject({ position: at(1_000_000), alreadyHeld: false, rows: { appended: 25 } });
  expect(receipt.bytes).toBe(endpoint.deliveries.reduce((sum, { body }) => sum + Buffer.byteLength(body), 0));
});

test('the raw shape tells the whole Change', async () => {
  const { sink } = await openSink(here());
  await sink.sendWindow(
    windowOf([
      event('u', 1, { key: ['a'], values: ['a', 'n', undefined] }),
      event('d', 2, { key: ['a'], values: ['a', undefined, undefined] }),
      event('c', 2, { key: ['b'], values: ['b', null, undefined], previousKey: ['a'] }),
      event('e', 3, { key: ['b'] }),
      event('t', 4),
      event('r', 5, { key: ['c'], values: ['c', '1', '2'] }),
      event('s', 5, { since: at(4) }),
    ]),
  );
  await sink.close();
  const base = { source: 'shop', schema: 'app', table: 'items' };
  expect(endpoint.events[0]).toEqual({
    ...base,
    id: `shop/app.items/${at(1, 1)}/u`,
    op: 'u',
    position: at(1, 1),
    commit_time: '2026-11-24T06:00:01.123456Z',
    key: { id: 'a' },
    row: { id: 'a', note: 'n' },
    unchanged: ['blob'],
  });
  expect(endpoint.events[1]).toMatchObject({ op: 'd', key: { id: 'a' }, row: { id: 'a' } });
  expect(endpoint.events[1]).not.toHaveProperty('unchanged');
  expect(endpoint.events[2]).toMatchObject({
    op: 'c',
    row: { id: 'b', note: null },
    unchanged: ['blob'],
    previous_key: { id: 'a' },
  });
  expect(endpoint.events[3]).toMatchObject({ op: 'e', key: { id: 'b' }, row: {} });
  expect(endpoint.events.slice(4).map(({ op, since }) => [op, since])).toEqual([
    ['t', undefined],
    ['r', undefined],
    ['s', at(4)],
  ]);
  expect(new Set(endpoint.events.map(({ id }) => id)).size).toBe(7);
  // Those that concern the whole table go by themselves.
  expect(endpoint.deliveries.map(({ events }) => events.length)).toEqual([4, 1, 1, 1]);
});

test('a table without a key sends whole old rows, in one lane', async () => {
  const shape = shapeOf('log', ['a', 'b'], false);
  const { sink } = await openSink(here({ lanes: 4, format: 'single' }));
  const rows = Array.from({ length: 12 }, (_, n) =>
    event('u', n + 1, { values: ['x', `${n}`], before: ['w', `${n}`] }),
  );
  await sink.sendWindow(windowOf(rows, { shape }));
  await sink.close();
  expect(endpoint.events.map(({ row }) => row.b)).toEqual(rows.map((_, n) => `${n}`));
  expect(endpoint.events[0]).toMatchObject({ key: {}, row: { a: 'x' }, before: { a: 'w' } });
  expect(Math.max(...endpoint.deliveries.map(({ parallel }) => parallel))).toBe(1);
});

test('column names are data: __proto__ and quotes arrive as what they are', async () => {
  const shape = shapeOf('odd', ['id', '__proto__', 'q"', 'constructor']);
  const { sink } = await openSink(here());
  await sink.sendWindow(
    windowOf([event('c', 1, { key: ['1'], values: ['1', 'a', 'b', '\u0001'] })], { shape }),
  );
  await sink.close();
  expect(endpoint.deliveries[0]!.body).toContain(
    '"row":{"id":"1","__proto__":"a","q\\"":"b","constructor":"\\u0001"}',
  );
});

test.each([
  ['array', 'application/json'],
  ['ndjson', 'application/x-ndjson'],
  ['single', 'application/json'],
])('format %s, compressed and not, is verified as it was before compression', async (format, type) => {
  for (const compression of ['none', 'gzip']) {
    const { sink } = await openSink(here({ format, compression, 'batch.max.events': 4 }));
    await sink.sendWindow(windowOf(inserts(6, 'line\nbreak')));
    await sink.close();
  }
  expect(endpoint.deliveries.every(({ verified }) => verified)).toBe(true);
  expect(endpoint.deliveries.map(({ events }) => events.length)).toEqual(
    format === 'single' ? new Array(12).fill(1) : [4, 2, 4, 2],
  );
  expect(endpoint.deliveries[0]!.headers['content-type']).toBe(type);
  expect(endpoint.deliveries.at(-1)!.headers['content-encoding']).toBe('gzip');
  expect(endpoint.events.every(({ row }) => row.note === 'line\nbreak')).toBe(true);
});

test('requests stay below batch.max.bytes, and a larger event goes by itself', async () => {
  const { sink } = await openSink(here({ 'batch.max.bytes': 4096 }));
  const events = [...inserts(20, 'n'.repeat(200)), insert(30, 'big', 'b'.repeat(9000)), insert(31, 'last')];
  await sink.sendWindow(windowOf(events));
  await sink.close();
  const sizes = endpoint.deliveries.map(({ body }) => Buffer.byteLength(body));
  expect(sizes.filter((size) => size > 4096)).toHaveLength(1);
  expect(endpoint.deliveries.find(({ body }) => body.length > 4096)!.events).toHaveLength(1);
  expect(endpoint.events.map(({ key }) => key.id)).toEqual(events.map(({ key }) => key[0]));
});

test('several secrets sign at once, so that receivers change over one by one', async () => {
  const next = newSecret();
  const { sink } = await openSink(here({ secret: `${next} ${secret}` }));
  await sink.sendWindow(windowOf(inserts(1)));
  endpoint.secret = next;
  await sink.sendWindow(windowOf(inserts(1), { sequence: 2 }));
  endpoint.secret = newSecret();
  await sink.sendWindow(windowOf(inserts(1), { sequence: 3 }));
  await sink.close();
  expect(endpoint.deliveries.map(({ verified }) => verified)).toEqual([true, true, false]);
});

test('lanes send at the same time and keep the order of each key; a truncate waits for all and all wait for it', async () => {
  endpoint.reply = async () => {
    await new Promise((resolve) => setTimeout(resolve, 3 + Math.random() * 10));
    return 204;
  };
  const events = Array.from({ length: 300 }, (_, n) => insert(n + 1, `k${n % 17}`, `${n}`));
  events[200] = event('t', 201);
  const { sink } = await openSink(here({ lanes: 4, 'batch.max.events': 5 }));
  await sink.sendWindow(windowOf(events));
  await sink.close();
  expect(Math.max(...endpoint.deliveries.map(({ parallel }) => parallel))).toBe(4);
  const perKey = Map.groupBy(endpoint.events, ({ key }) => key.id);
  for (const [id, seen] of perKey) {
    if (id !== undefined)
      expect(seen.map(({ position }) => position)).toEqual(seen.map(({ position }) => position).sort());
  }
  const truncated = endpoint.events.findIndex(({ op }) => op === 't');
  const isBefore = (entry: { position: string }) => entry.position < at(201, 1);
  expect(endpoint.events.slice(0, truncated).every(isBefore)).toBe(true);
  expect(endpoint.events.slice(truncated + 1).some(isBefore)).toBe(false);
});

test('the same Window makes the same requests in any process; another one, or other events, never the same id', async () => {
  const requests = async (...windows: ReturnType<typeof windowOf>[]) => {
    const { sink } = await openSink(here({ lanes: 3, 'batch.max.events': 4 }));
    const start = endpoint.deliveries.length;
    for (const window of windows) await sink.sendWindow(window);
    await sink.close();
    return endpoint.deliveries.slice(start).map(({ id, body }) => `${id} ${body}`);
  };
  const first = await requests(windowOf(inserts(40)));
  expect((await requests(windowOf(inserts(40)))).sort()).toEqual([...first].sort());
  const others = [
    ...(await requests(windowOf(inserts(40), { sequence: 2 }))),
    ...(await requests(windowOf(inserts(40).toSpliced(1, 1)))),
  ];
  const ids = [...first, ...others].map((text) => text.split(' ')[0]);
  const bodies = new Map<string, string>();
  for (const text of [...first, ...others]) {
    const [id, body] = [text.slice(0, text.indexOf(' ')), text.slice(text.indexOf(' ') + 1)];
    expect(bodies.get(id) ?? body).toBe(body);
    bodies.set(id, body);
  }
  expect(new Set(ids).size).toBeGreaterThan(first.length);
});

test('without snapshot.rows neither the rows nor the ends of snapshots are sent', async () => {
  const { sink } = await openSink(here({ 'snapshot.rows': false }));
  const receipt = await sink.sendWindow(
    windowOf([
      event('r', 1, { key: ['a'], values: ['a', null, null] }),
      insert(2, 'b'),
      event('s', 3, { since: at(1) }),
    ]),
  );
  await sink.close();
  expect(endpoint.events.map(({ op }) => op)).toEqual(['c']);
  expect(receipt.rows.appended).toBe(1);
});

test('own headers are sent, and a test delivery says that it is one', async () => {
  const values = optionValues(here({ headers: 'Authorization: Bearer abc\nX-Index: main' }));
  for (const shape of ['raw', 'finding']) {
    const findings = await webhookSink.test!(contextOf(), { ...values, shape });
    expect(findings.filter(({ level }) => level === 'ok').map(({ what }) => what)[0]).toMatch(
      new RegExp(`^HTTP 204 after \\d+ ms to one made-up ${shape} event`),
    );
    expect(endpoint.events.at(-1)).toMatchObject(
      shape === 'raw'
        ? {
            table: 'test',
            schema: 'tidemark',
            row: { message: 'Test delivery from Tidemark: nothing happened' },
          }
        : { finding_info: { title: 'Test delivery from Tidemark: nothing happened' }, severity_id: 1 },
    );
  }
  expect(
    endpoint.deliveries.every(({ verified, headers }) => verified && headers.authorization === 'Bearer abc'),
  ).toBe(true);
  endpoint.reply = () => 401;
  const refused = await webhookSink.test!(contextOf(), values);
  expect(refused.at(-1)).toMatchObject({ level: 'error', remedy: expect.stringContaining('credentials') });
});

test('check finds an endpoint without posting to it, and names what is wrong', async () => {
  const ok = await webhookSink.check(contextOf(), optionValues(here()));
  expect(ok.map(({ level }) => level)).toEqual(['warn', 'ok']);
  expect(endpoint.deliveries).toHaveLength(0);
  await endpoint.stop();
  const gone = await webhookSink.check(contextOf(), optionValues(here()));
  expect(gone).toMatchObject([{ level: 'error', what: 'TM401: the endpoint does not answer: ECONNREFUSED' }]);
});

test('events stop where the Unit is not ours any more', async () => {
  const { sink } = await openSink(here({ 'batch.max.events': 5 }));
  const { TidemarkError } = await import('../../src/connector/failure.ts');
  const gone = windowOf(async function* () {
    yield inserts(12);
    throw new TidemarkError('TM403', 'given up');
  });
  expect((await failure(sink.sendWindow(gone))).code).toBe('TM403');
  await sink.close();
  expect(endpoint.events.length).toBeLessThanOrEqual(10);
});

type Verify = (secrets: string[], headers: Record<string, unknown>, body: Buffer) => boolean;

test('the README shows how to verify a request', async () => {
  const readme = new URL('../../connectors/sinks/webhook/README.md', import.meta.url);
  const [, sample] = /```js\n([\s\S]*?)```/.exec(readFileSync(readme, 'utf8'))!;
  const { verify } = (await import(`data:text/javascript,${encodeURIComponent(sample!)}`)) as {
    verify: Verify;
  };
  for (const format of ['array', 'ndjson', 'single']) {
    const { sink } = await openSink(
      here({ format, compression: 'gzip', secret: `${newSecret()} ${secret}` }),
    );
    await sink.sendWindow(windowOf(inserts(2, 'ünï')));
    await sink.close();
  }
  const key = secret.slice('whsec_'.length);
  const other = newSecret().slice('whsec_'.length);
  for (const { headers, body } of endpoint.deliveries) {
    const bytes = Buffer.from(body);
    expect(verify([other, key], headers, bytes)).toBe(true);
    expect(verify([other], headers, bytes)).toBe(false);
    expect(verify([key], headers, Buffer.from(body.replace('c', 'd')))).toBe(false);
    expect(verify([key], { ...headers, 'webhook-id': 'x' }, bytes)).toBe(false);
    const old = String(Number(headers['webhook-timestamp']) - 400);
    expect(verify([key], { ...headers, 'webhook-timestamp': old }, bytes)).toBe(false);
    expect(verify([key], {}, bytes)).toBe(false);
  }
  expect(endpoint.deliveries).toHaveLength(4);
});

test('the example instance is one that the configuration and the sink accept', async () => {
  const file = new URL('../../connectors/instances/siem.example.json', import.meta.url);
  const { config } = JSON.parse(readFileSync(file, 'utf8')) as { config: Record<string, string> };
  const known = new Set([...Object.keys(webhookSink.options), 'connector.class', 'tables', 'cadence']);
  expect(Object.keys(config).filter((key) => !known.has(key))).toEqual([]);
  const { headers, shape, format, compression, lanes } = config;
  const own = {
    headers: headers!.replace(/\$\{.*\}/, 'token'),
    shape: shape!,
    format: format!,
    compression: compression!,
  };
  const { sink } = await openSink(here({ ...own, lanes: Number(lanes) }));
  await sink.sendWindow(windowOf(inserts(10)));
  await sink.close();
  expect(endpoint.events.map(({ class_uid }) => class_uid)).toEqual(new Array(10).fill(2004));
});
