/** The webhook sink against an endpoint that fails, stalls, refuses and redirects, and a process that is killed. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { resolve } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { RefusedRows } from '../../src/connector/failure.ts';
import type { OptionValues, SendSink } from '../../src/connector/sink.ts';
import { stateOf } from '../conformance/webhook-receiver.ts';
import { type Delivery, TestEndpoint } from '../fixtures/webhook-endpoint.ts';
import { seeded } from './parquet-harness.ts';
import {
  at,
  event,
  failure,
  insert,
  inserts,
  items,
  newSecret,
  openSink,
  windowOf,
} from './webhook-harness.ts';

let endpoint: TestEndpoint;
const secret = newSecret();
const here = (more: OptionValues = {}): OptionValues => ({
  url: endpoint.url(),
  secret,
  'batch.max.events': 10,
  timeout: 500,
  ...more,
});
beforeEach(async () => {
  endpoint = await TestEndpoint.start(secret);
});
afterEach(() => endpoint.stop());

const idsIn = (deliveries: readonly Delivery[]) =>
  deliveries.flatMap(({ events }) => events.map(({ key }) => key.id as string));
const allIds = (count: number) => inserts(count).map(({ key }) => key[0]);

/** Fails so many deliveries, from the n-th (from 1) on. */
function failFrom(nth: number, reply: Awaited<ReturnType<TestEndpoint['reply']>>, times = 1): void {
  let seen = 0;
  endpoint.reply = () => {
    seen += 1;
    return seen >= nth && seen < nth + times ? reply : 204;
  };
}

test.each([
  ['503', 503, 'TM401'],
  ['500', 500, 'TM401'],
  ['429', 429, 'TM401'],
  ['401', 401, 'TM402'],
  ['403', 403, 'TM402'],
  ['404', 404, 'TM402'],
  ['410', 410, 'TM402'],
])(
  'HTTP %s stops the Window, and the same instance goes on behind what was acknowledged',
  async (_name, status, code) => {
    const times = code === 'TM401' ? 2 : 1;
    failFrom(3, status, times);
    const { sink } = await openSink(here());
    expect(await failure(sink.sendWindow(windowOf(inserts(50))))).toMatchObject({ code });
    const receipt = await sink.sendWindow(windowOf(inserts(50)));
    await sink.close();
    expect(idsIn(endpoint.acknowledged)).toEqual(allIds(50));
    // The refused request was repeated under the same name, and nothing else was.
    const names = endpoint.deliveries.map(({ id }) => id);
    expect(names).toHaveLength(5 + times);
    expect(new Set(names).size).toBe(5);
    expect(names[3]).toBe(names[2]);
    expect(endpoint.deliveries[3]!.body).toBe(endpoint.deliveries[2]!.body);
    expect(receipt.rows.appended).toBe(50);
    expect(receipt.bytes).toBe(endpoint.distinct.reduce((sum, { body }) => sum + body.length, 0));
  },
);

test('one failure amid what is acknowledged is tried again in place, not one of an endpoint that gives no sign', async () => {
  let seen = 0;
  endpoint.reply = () => (++seen % 3 === 0 ? { status: 503, headers: { 'retry-after': '0' } } : 204);
  const { sink } = await openSink(here());
  await sink.sendWindow(windowOf(inserts(40)));
  expect(idsIn(endpoint.acknowledged)).toEqual(allIds(40));
  endpoint.reply = () => 503;
  const before = endpoint.deliveries.length;
  await failure(sink.sendWindow(windowOf(inserts(40), { sequence: 2 })));
  await sink.close();
  expect(endpoint.deliveries.length).toBe(before + 1);
});

test('a rest of more than seconds is left to the pipeline', async () => {
  failFrom(2, { status: 429, headers: { 'retry-after': '6' } });
  const { sink } = await openSink(here());
  expect(await failure(sink.sendWindow(windowOf(inserts(40))))).toMatchObject({ retryAfterMs: 6000 });
  await sink.close();
  expect(endpoint.deliveries).toHaveLength(2);
});

test('every lane goes on for itself after a failure', async () => {
  let seen = 0;
  endpoint.reply = () => (++seen % 4 === 0 ? 503 : 204);
  const { sink } = await openSink(here({ lanes: 3, 'batch.max.events': 3 }));
  for (let attempts = 1; ; attempts += 1) {
    const done = await sink.sendWindow(windowOf(inserts(60))).then(
      () => true,
      () => false,
    );
    if (done) break;
    expect(attempts).toBeLessThan(40);
  }
  await sink.close();
  expect(idsIn(endpoint.acknowledged).sort()).toEqual(allIds(60).sort());
});

test('another Window, or another Unit, begins at its own beginning', async () => {
  failFrom(2, 503, 2);
  const { sink } = await openSink(here());
  await failure(sink.sendWindow(windowOf(inserts(20))));
  await sink.sendWindow(windowOf(inserts(20), { sequence: 2 }));
  await sink.close();
  expect(idsIn(endpoint.acknowledged).slice(10)).toEqual(allIds(20));
});

test.each([
  ['in seconds', () => '7', 7000, 7000],
  ['as an HTTP date', () => new Date(Date.now() + 20_000).toUTCString(), 18_000, 20_000],
  ['of a day, cut to an hour', () => '86400', 3_600_000, 3_600_000],
])('Retry-After %s is handed on', async (_name, value, least, most) => {
  endpoint.reply = () => ({ status: 429, headers: { 'retry-after': value() }, body: 'slow down' });
  const { sink } = await openSink(here());
  const error = await failure(sink.sendWindow(windowOf(inserts(1))));
  await sink.close();
  expect(error.code).toBe('TM401');
  expect(error.retryAfterMs).toBeGreaterThanOrEqual(least);
  expect(error.retryAfterMs).toBeLessThanOrEqual(most);
});

test.each<[string, Exclude<Awaited<ReturnType<TestEndpoint['reply']>>, number>]>([
  ['takes the request and never answers (half-open)', () => undefined],
  [
    'sends the head of its answer a byte at a time',
    (_request, response) => {
      let sent = 0;
      const drip = setInterval(() => response.socket!.write('HTTP/1.1 204 No Content'[sent++ % 20]!), 50);
      response.socket!.on('close', () => clearInterval(drip));
    },
  ],
])('an endpoint that %s is given up after the timeout', async (_name, reply) => {
  failFrom(1, reply);
  const { sink } = await openSink(here());
  const begun = Date.now();
  const error = await failure(sink.sendWindow(windowOf(inserts(12))));
  expect(error).toMatchObject({ code: 'TM401', message: 'the endpoint did not answer within 500 ms' });
  expect(Date.now() - begun).toBeLessThan(1500);
  await sink.sendWindow(windowOf(inserts(12)));
  await sink.close();
  expect(idsIn(endpoint.acknowledged)).toEqual(allIds(12));
});

test('a connection that is reset is opened anew once, and then is a failure that passes', async () => {
  failFrom(2, (request) => void request.socket.destroy());
  const { sink } = await openSink(here());
  await sink.sendWindow(windowOf(inserts(20)));
  expect(idsIn(endpoint.acknowledged)).toEqual(allIds(20));
  expect(endpoint.deliveries.map(({ id }) => id)).toHaveLength(3);
  endpoint.reply = () => (request) => void request.socket.destroy();
  const error = await failure(sink.sendWindow(windowOf(inserts(20), { sequence: 2 })));
  await sink.close();
  expect(error.code).toBe('TM401');
  expect(endpoint.deliveries).toHaveLength(5);
});

test('an endpoint that is down is TM401, and delivery goes on when it is back', async () => {
  const { sink } = await openSink(here());
  await endpoint.stop();
  expect(await failure(sink.sendWindow(windowOf(inserts(5))))).toMatchObject({
    code: 'TM401',
    message: 'the endpoint does not answer: ECONNREFUSED',
  });
  await endpoint.listen();
  await sink.sendWindow(windowOf(inserts(5)));
  await sink.close();
  expect(idsIn(endpoint.acknowledged)).toEqual(allIds(5));
});

test('an acknowledgement counts whatever follows it: endless, stalled and broken bodies are cut off', async () => {
  const replies: ((delivery: Delivery) => ReturnType<TestEndpoint['reply']>)[] = [
    () => (_request, response) => {
      response.writeHead(200);
      const more = () => {
        while (!response.destroyed && response.write('x'.repeat(65_536)));
      };
      response.on('drain', more);
      more();
    },
    () => (_request, response) => void response.writeHead(200, { 'content-length': '10' }).write('half'),
    () => (_request, response) => {
      response.writeHead(200, { 'content-length': '10' }).write('half');
      setTimeout(() => response.destroy(), 20);
    },
    () => ({ status: 200, body: 'y'.repeat(300_000) }),
  ];
  let seen = 0;
  endpoint.reply = (delivery) => replies[seen++ % replies.length]!(delivery);
  const { sink } = await openSink(here());
  const before = process.memoryUsage().rss;
  await sink.sendWindow(windowOf(inserts(80)));
  await sink.close();
  expect(idsIn(endpoint.deliveries)).toEqual(allIds(80));
  expect(process.memoryUsage().rss - before).toBeLessThan(100 * 1024 * 1024);
}, 30_000);

test('a redirect is followed within the host, as a POST of the same signed body, and nowhere else', async () => {
  const other = await TestEndpoint.start(secret);
  const { sink } = await openSink(here({ headers: 'Authorization: Bearer secret' }));
  for (const status of [301, 302, 307, 308]) {
    endpoint.reply = ({ path }) => (path === '/moved' ? 204 : { status, headers: { location: '/moved' } });
    await sink.sendWindow(windowOf(inserts(1), { sequence: status }));
  }
  expect(endpoint.acknowledged.map(({ path, verified }) => [path, verified])).toEqual(
    new Array(4).fill(['/moved', true]),
  );
  for (const location of [
    other.url(),
    other.url('localhost'),
    endpoint.url('localhost'),
    'file:///etc/passwd',
  ]) {
    endpoint.reply = () => ({ status: 307, headers: { location } });
    const error = await failure(sink.sendWindow(windowOf(inserts(1), { sequence: 500 })));
    expect(error).toMatchObject({ code: 'TM402', message: expect.stringContaining('HTTP 307') });
    expect(error.message + error.remedy).not.toContain(location);
  }
  endpoint.reply = () => ({ status: 303, headers: { location: '/moved' } });
  expect(await failure(sink.sendWindow(windowOf(inserts(1), { sequence: 501 })))).toMatchObject({
    code: 'TM402',
  });
  endpoint.reply = () => ({ status: 307, headers: { location: '/again' } });
  expect(await failure(sink.sendWindow(windowOf(inserts(1), { sequence: 502 })))).toMatchObject({
    code: 'TM402',
  });
  await sink.close();
  expect(other.deliveries).toHaveLength(0);
  await other.stop();
});

/** Sends the Window as the worker would: refused rows are left out of the next attempt. */
async function sendWithout(sink: SendSink, events: ReturnType<typeof inserts>, most = 20): Promise<string[]> {
  const away = new Set<string>();
  for (let attempt = 0; attempt < most; attempt += 1) {
    const rest = events.filter(({ position }) => !away.has(position));
    const error = await sink.sendWindow(windowOf(rest)).then(
      () => null,
      (thrown) => thrown as RefusedRows,
    );
    if (error === null) return [...away];
    if (error.code !== 'TM410') throw error;
    expect(error.rows.length).toBeGreaterThan(0);
    for (const { position } of error.rows) away.add(position);
  }
  throw new Error('rows were refused again and again');
}

test.each([400, 422, 413])(
  'HTTP %i is narrowed down to the events that it is about, and the rest arrives',
  async (status) => {
    const bad = new Set(['id-3', 'id-4', 'id-17', 'id-40']);
    endpoint.reply = ({ events }) => (events.some(({ key }) => bad.has(key.id)) ? status : 204);
    const { sink, logs } = await openSink(here({ lanes: 2 }));
    const refused = await sendWithout(sink, inserts(50));
    await sink.close();
    expect(refused.sort()).toEqual([3, 4, 17, 40].map((lsn) => at(lsn, 1)));
    const rest = allIds(50).filter((id) => !bad.has(id!));
    expect(idsIn(endpoint.acknowledged).sort()).toEqual(rest.sort());
    expect(logs.join()).not.toContain('id-');
  },
);

test('what is refused is named with its table, Position and status, and is tried again if it is not put away', async () => {
  let open = false;
  endpoint.reply = ({ events }) => (!open && events.some(({ key }) => key.id === 'id-7') ? 422 : 204);
  const { sink } = await openSink(here());
  const error = await failure<RefusedRows>(sink.sendWindow(windowOf(inserts(30))));
  expect(error).toMatchObject({
    code: 'TM410',
    rows: [{ table: { schema: 'app', name: 'items' }, position: at(7, 1), reason: 'HTTP 422' }],
  });
  await failure<RefusedRows>(sink.sendWindow(windowOf(inserts(30))));
  open = true;
  await sink.sendWindow(windowOf(inserts(30)));
  await sink.close();
  expect(new Set(idsIn(endpoint.acknowledged))).toEqual(new Set(allIds(30)));
});

test('later events of a refused key, and everything behind them, wait for the next attempt', async () => {
  const events = inserts(20);
  events[11] = event('u', 12, { key: ['id-5'], values: ['id-5', 'later', null] });
  endpoint.reply = (delivery) =>
    delivery.events.some(({ row }) => row.note === null && row.id === 'id-5') ? 400 : 204;
  const { sink } = await openSink(here({ 'batch.max.events': 20 }));
  const error = await failure<RefusedRows>(sink.sendWindow(windowOf(events)));
  expect(error.rows.map(({ position }) => position)).toEqual([at(5, 1)]);
  expect(endpoint.events.map(({ position }) => position)).toEqual(
    events
      .filter(({ position }) => position < at(12, 0) && position !== at(5, 1))
      .map(({ position }) => position),
  );
  await sink.sendWindow(windowOf(events.filter(({ key }) => key[0] !== 'id-5')));
  await sink.close();
  expect(endpoint.events).toHaveLength(18);
});

test('413 makes later requests smaller, with the ids that asking would have led to', async () => {
  const limit = 1500;
  endpoint.reply = ({ body }) => (body.length > limit ? 413 : 204);
  const { sink, logs } = await openSink(here({ 'batch.max.events': 32 }));
  await sink.sendWindow(windowOf(inserts(128)));
  await sink.close();
  const tooLarge = endpoint.deliveries.filter(({ body }) => body.length > limit);
  expect(tooLarge.length).toBeLessThan(8);
  expect(logs.some((line) => line.includes('HTTP 413'))).toBe(true);
  expect(idsIn(endpoint.acknowledged)).toEqual(allIds(128));
  const learned = endpoint.acknowledged.map(({ id }) => id);
  // The second half, sent by a process that knows nothing yet, is cut alike.
  const again = await openSink(here({ 'batch.max.events': 32 }));
  await again.sink.sendWindow(windowOf(inserts(128)));
  await again.sink.close();
  expect(endpoint.acknowledged.slice(learned.length).map(({ id }) => id)).toEqual(learned);
});

test('an endpoint that refuses everything is not taken for bad rows', async () => {
  endpoint.reply = () => 400;
  const { sink } = await openSink(here({ 'batch.max.events': 200 }));
  const first = await failure<RefusedRows>(sink.sendWindow(windowOf(inserts(200))));
  expect(first.rows).toHaveLength(50);
  const error = await failure(sink.sendWindow(windowOf(inserts(200).slice(50))));
  expect(error).toMatchObject({ code: 'TM402', message: expect.stringContaining('HTTP 400') });
  endpoint.reply = () => 204;
  await sink.sendWindow(windowOf(inserts(200).slice(50)));
  await sink.close();
  expect(idsIn(endpoint.acknowledged)).toEqual(allIds(200).slice(50));
});

async function child(
  options: OptionValues,
  failpoints: string,
): Promise<{ code: number | null; out: string }> {
  const program = resolve(import.meta.dirname, 'webhook-child.ts');
  const run = spawn(process.execPath, [program, JSON.stringify(options), '60'], {
    env: { ...process.env, TIDEMARK_FAILPOINTS: failpoints },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  run.stdout.on('data', (piece) => {
    out += piece;
  });
  const [code] = (await once(run, 'close')) as [number | null];
  return { code, out };
}

test.each(['webhook:before-request', 'webhook:after-request'])(
  'killed at %s: the Window is sent again whole, and dropping known ids leaves each event once',
  async (failpoint) => {
    const options = here({ timeout: 5000, lanes: 2 });
    expect((await child(options, `${failpoint}=kill@4`)).code).toBeNull();
    const before = endpoint.acknowledged.length;
    expect(before).toBeGreaterThan(1);
    const { code, out } = await child(options, '');
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ rows: { appended: 60 } });
    expect(endpoint.acknowledged.length - before).toBe(endpoint.distinct.length);
    expect(idsIn(endpoint.distinct).sort()).toEqual(allIds(60).sort());
    const events = new Set(endpoint.events.map(({ id }) => id));
    expect(events.size).toBe(60);
  },
);

test('nothing of the rows, the secret, the headers or the url is in an error or a log line', async () => {
  const words = ['planted-value', 'planted-header', 'planted-path', 'planted-answer', secret.slice(6)];
  const outcomes: string[] = [];
  for (const status of [400, 401, 413, 422, 429, 500, 302]) {
    endpoint.reply = () => ({
      status,
      headers: { location: 'http://planted-answer.invalid/' },
      body: 'planted-answer',
    });
    const { sink, logs } = await openSink(
      here({ url: endpoint.url('127.0.0.1', '/planted-path'), headers: 'X-Token: planted-header' }),
    );
    const error = await failure(
      sink.sendWindow(windowOf([insert(1, 'planted-value'), insert(2, 'planted-value')])),
    );
    outcomes.push(error.message, error.remedy, String(error.stack), String(error.cause), ...logs);
    await sink.close();
  }
  await endpoint.stop();
  const { sink } = await openSink(here({ headers: 'X-Token: planted-header' }));
  const error = await failure(sink.sendWindow(windowOf([insert(1, 'planted-value')])));
  outcomes.push(error.message, String(error.stack));
  await sink.close();
  for (const word of words) expect(outcomes.join('\n')).not.toContain(word);
});

test('a 413 that comes before the body was read is understood', async () => {
  let taken = 0;
  const server = createServer((request, response) => {
    if (Number(request.headers['content-length']) > 300_000) {
      response.writeHead(413, { connection: 'close' }).end();
      return;
    }
    request.resume().on('end', () => {
      taken += 1;
      response.writeHead(204).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const { sink } = await openSink(
    here({ url, 'batch.max.events': 2000, 'batch.max.bytes': 16_777_216, timeout: 5000 }),
  );
  await sink.sendWindow(windowOf(inserts(2000, 'n'.repeat(3000))));
  await sink.close();
  expect(taken).toBe(32);
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

/** Changes of a few keys, with the rows that are left in the end. */
function randomChanges(random: ReturnType<typeof seeded>, count: number) {
  const rows = new Map<string, string>();
  const events = Array.from({ length: count }, (_, index) => {
    const lsn = index + 1;
    const id = `k${random.below(12)}`;
    const note = `n${lsn}`;
    if (random.below(60) === 0) {
      rows.clear();
      return event('t', lsn);
    }
    if (rows.has(id) && random.below(3) === 0) {
      rows.delete(id);
      return event('d', lsn, { key: [id], values: [id, undefined, undefined] });
    }
    const op = rows.has(id) ? 'u' : 'c';
    rows.set(id, note);
    return event(op, lsn, { key: [id], values: [id, note, null] });
  });
  return { events, rows: [...rows].map(([id, note]) => [id, note, null]).sort() };
}

test.each([1, 2, 3, 4].map(() => Math.floor(Math.random() * 2 ** 31)))(
  'by chance (seed %i): whatever is lost on the way, each Change arrives, and first arrivals keep the order of their keys',
  async (seed) => {
    const random = seeded(seed);
    const { events, rows } = randomChanges(random, 300);
    const arrived: Delivery[] = [];
    endpoint.reply = (delivery) => {
      const chance = random.below(100);
      if (chance < 6) return random.pick([429, 500, 503]);
      if (chance < 9) return (request) => void request.socket.destroy();
      arrived.push(delivery);
      // Taken, and the acknowledgement is lost.
      if (chance < 14) return random.pick([500, 504]);
      if (chance < 17) return (request) => void request.socket.destroy();
      return 204;
    };
    const options = here({ lanes: 1 + random.below(4), 'batch.max.events': 4 + random.below(12) });
    let { sink } = await openSink(options);
    for (let attempt = 0; ; attempt += 1) {
      expect(attempt, `seed ${seed}`).toBeLessThan(500);
      const done = await sink.sendWindow(windowOf(events)).then(
        () => true,
        () => false,
      );
      if (done) break;
      if (random.below(25) === 0) {
        // The process died, and what it knew with it.
        await sink.close();
        ({ sink } = await openSink(options));
      }
    }
    await sink.close();
    const seen = arrived.flatMap((delivery) => delivery.events);
    const first = [...new Map(seen.toReversed().map((each) => [each.id, each])).values()].toReversed();
    expect(new Set(first.map(({ position }) => position))).toEqual(
      new Set(events.map(({ position }) => position)),
    );
    for (const own of Map.groupBy(first, ({ key }) => key.id).values()) {
      const positions = own.map(({ position }) => position);
      expect(positions, `seed ${seed}`).toEqual([...positions].sort());
    }
    expect(stateOf(seen, items).sort(), `seed ${seed}`).toEqual(rows);
  },
);
