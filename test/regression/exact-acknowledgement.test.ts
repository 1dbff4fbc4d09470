/**
 * Acknowledge after durable, and not one byte more (invariants 1 and 3). Why pg-logical-replication's own
 * acknowledgements are not used, shown on a real Postgres, and that ours keep what its lose.
 */
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { LogicalReplicationService } from 'pg-logical-replication';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { formatLsn, parseLsn } from '../../src/connector/position.ts';
import { decodeMessage } from '../../src/replicate/pgoutput.ts';
import { ReplicationStream, type ReplicationStreamOptions } from '../../src/replicate/replication-stream.ts';
import { startServers, startTimeoutMs, type TestServers } from '../fixtures/postgres.ts';

vi.setConfig({ testTimeout: 60_000, hookTimeout: startTimeoutMs });

let servers: TestServers;
let a: Client;
let b: Client;
const open: { close(): Promise<unknown> }[] = [];

beforeAll(async () => {
  servers = await startServers();
  a = await servers.connect();
  b = await servers.connect();
  await a.query('create table public.t (id int primary key, filler text)');
  await a.query('create publication p for table public.t');
});
afterEach(async () => {
  for (const stream of open.splice(0)) await stream.close();
});
afterAll(async () => {
  await a?.end();
  await b?.end();
  await servers?.stop();
});

async function createSlot(name: string): Promise<bigint> {
  const { rows } = await a.query(`select lsn from pg_create_logical_replication_slot($1, 'pgoutput')`, [
    name,
  ]);
  return parseLsn(rows[0].lsn);
}

async function confirmedLsn(slot: string): Promise<bigint> {
  const { rows } = await a.query(
    'select confirmed_flush_lsn from pg_replication_slots where slot_name = $1',
    [slot],
  );
  return parseLsn(rows[0].confirmed_flush_lsn);
}

async function until(what: string, done: () => boolean | Promise<boolean>): Promise<void> {
  const giveUpAt = Date.now() + 20_000;
  while (!(await done())) {
    if (Date.now() > giveUpAt) throw new Error(`not within 20 s: ${what}`);
    await sleep(20);
  }
}

interface Received {
  ids: number[];
  commits: { lsn: bigint; endLsn: bigint; ids: number[] }[];
}

/** Collects what transactions inserted into t. */
function receiver(): Received & { take(bytes: Buffer): void } {
  const ids: number[] = [];
  const commits: Received['commits'] = [];
  let current: number[] = [];
  return {
    ids,
    commits,
    take(bytes) {
      decodeMessage(bytes, {
        begin: () => {
          current = [];
        },
        commit: (lsn, endLsn) => {
          ids.push(...current);
          commits.push({ lsn, endLsn, ids: current });
        },
        relation: () => undefined,
        insert: (_oid, after) => void current.push(after.bytes.readInt32BE(after.starts[0])),
        update: () => undefined,
        delete: () => undefined,
        truncate: () => undefined,
        message: () => undefined,
      });
    },
  };
}

/** As ReplicationStream's plugin; the acknowledgements are the library's. */
class RawPlugin {
  readonly options = {};
  readonly name = 'pgoutput';
  parse(bytes: Buffer) {
    return bytes;
  }
  start(client: Client, slot: string, lsn: string) {
    return client.query(
      `START_REPLICATION SLOT "${slot}" LOGICAL ${lsn} (proto_version '1', publication_names 'p', binary 'true')`,
    );
  }
}

async function openLibrary(slot: string, lsn: bigint, timeoutSeconds = 0) {
  const received = receiver();
  const service = new LogicalReplicationService(servers.connection, {
    acknowledge: { auto: false, timeoutSeconds },
  });
  service.on('data', (_lsn: string, bytes: Buffer) => received.take(bytes));
  service.on('error', () => undefined);
  const started = once(service as never, 'start');
  service.subscribe(new RawPlugin() as never, slot, formatLsn(lsn)).catch(() => undefined);
  await started;
  const close = () => service.destroy();
  open.push({ close });
  return { service, close, ...received };
}

async function openOurs(slot: string, startLsn: bigint, options: Partial<ReplicationStreamOptions> = {}) {
  const received = receiver();
  const keepalives: { lsn: bigint; timeUs: bigint }[] = [];
  const stream = new ReplicationStream({
    connection: servers.connection,
    slot,
    publications: ['p'],
    startLsn,
    statusIntervalMs: 100,
    onMessage: received.take,
    onKeepalive: (lsn, timeUs) => void keepalives.push({ lsn, timeUs }),
    ...options,
  });
  open.push(stream);
  await stream.open();
  return { stream, keepalives, ...received };
}

/** The slot of a killed connection is free a moment later. */
async function free(slot: string): Promise<void> {
  await until(`slot ${slot} is free`, async () => {
    const { rows } = await a.query('select active from pg_replication_slots where slot_name = $1', [slot]);
    return rows[0].active === false;
  });
}

describe('a commit record that starts where the last confirmed transaction ended', () => {
  it("is skipped after the library's acknowledge(end), and delivered after confirm(end)", async () => {
    // The coincidence needs that nobody else (a checkpoint, the background writer) writes WAL between two commits.
    for (let round = 1; ; round++) {
      const [first, second, third] = [round * 10, round * 10 + 1, round * 10 + 2];
      const [theirs, ours, witness] = [`theirs_${round}`, `ours_${round}`, `witness_${round}`];
      const starts = [await createSlot(theirs), await createSlot(ours), await createSlot(witness)];
      const library = await openLibrary(theirs, starts[0]!);
      const own = await openOurs(ours, starts[1]!);

      // A's changes lie in the WAL before B's whole transaction; A's commit comes right after it.
      await a.query('begin');
      await a.query('insert into public.t values ($1)', [first]);
      await b.query('insert into public.t values ($1)', [second]);
      await until('both receive B', () => library.ids.length === 1 && own.ids.length === 1);
      const { endLsn } = library.commits[0]!;
      await library.service.acknowledge(formatLsn(endLsn), true);
      own.stream.confirm(endLsn);
      own.stream.ping();
      await until('both confirmed B', async () => {
        // Through B: A is inside its transaction, where it may only read.
        const { rows } = await b.query(
          'select confirmed_flush_lsn from pg_replication_slots where slot_name = any ($1)',
          [[theirs, ours]],
        );
        return rows.every((row) => parseLsn(row.confirmed_flush_lsn) >= endLsn);
      });
      await library.close();
      await own.stream.close();
      await a.query('commit');
      await b.query('insert into public.t values ($1)', [third]);
      await free(theirs);
      await free(ours);

      const { rows } = await a.query(
        `select data from pg_logical_slot_peek_binary_changes($1, null, null, 'proto_version', '1', 'publication_names', 'p', 'binary', 'true')`,
        [witness],
      );
      const truth = receiver();
      for (const { data } of rows) truth.take(data);
      expect(truth.ids).toEqual([second, first, third]);
      const coincides = truth.commits[1]!.lsn === truth.commits[0]!.endLsn;
      if (!coincides && round < 50) {
        for (const slot of [theirs, ours, witness])
          await a.query('select pg_drop_replication_slot($1)', [slot]);
        continue;
      }
      expect(coincides, 'the coincidence did not come about in 50 rounds').toBe(true);

      expect(await confirmedLsn(theirs)).toBe(endLsn + 1n);
      expect(await confirmedLsn(ours)).toBe(endLsn);
      const libraryAgain = await openLibrary(theirs, endLsn);
      await until('the library receives what the server has', () => libraryAgain.ids.includes(third));
      expect(libraryAgain.ids, "A's transaction is lost").toEqual([third]);
      const ownAgain = await openOurs(ours, endLsn);
      await until('ours receives what the server has', () => ownAgain.ids.includes(third));
      expect(ownAgain.ids, "A's transaction arrives").toEqual([first, third]);
      return;
    }
  });
});

describe('received is not processed', () => {
  it("the library's timer acknowledges what was only received, although auto is off", async () => {
    const start = await createSlot('timer_theirs');
    const library = await openLibrary('timer_theirs', start, 1);
    await a.query('insert into public.t values (100001)');
    await until('the timer acknowledges', async () => (await confirmedLsn('timer_theirs')) > start);
    const commit = library.commits[0]!;
    await library.close();
    await free('timer_theirs');
    expect(await confirmedLsn('timer_theirs')).toBeGreaterThan(commit.lsn);
    const again = await openLibrary('timer_theirs', start);
    await a.query('insert into public.t values (100002)');
    await until('the next transaction', () => again.ids.includes(100002));
    expect(again.ids, 'nobody processed 100001, and it is gone').toEqual([100002]);
  });

  it('our statuses repeat what was confirmed, however much was received', async () => {
    const start = await createSlot('timer_ours');
    const own = await openOurs('timer_ours', start);
    await a.query('insert into public.t values (100003)');
    await until('it is received', () => own.ids.includes(100003));
    const heard = own.keepalives.length;
    await until('statuses are answered', () => own.keepalives.length > heard + 20);
    expect(await confirmedLsn('timer_ours')).toBe(start);
    await own.stream.close();
    await free('timer_ours');
    const again = await openOurs('timer_ours', start);
    await until('it comes again', () => again.ids.includes(100003));
  });

  it('a keepalive carries the server’s clock and an LSN that covers what was sent', async () => {
    const own = await openOurs('clock', await createSlot('clock'));
    await a.query('insert into public.t values (100004)');
    await until('it is received', () => own.ids.includes(100004));
    const { endLsn } = own.commits[0]!;
    const before = Date.now();
    await until('a keepalive after it', () => own.keepalives.some(({ lsn }) => lsn >= endLsn));
    const { timeUs } = own.keepalives.at(-1)!;
    // The library's own reckoning is a week behind.
    expect(Math.abs(Number(timeUs / 1000n) - before)).toBeLessThan(20_000);
  });
});

describe('the connection', () => {
  it('survives several wal_sender_timeouts of paused reading, with data waiting, and loses nothing', async () => {
    const start = await createSlot('paused');
    const own = await openOurs('paused', start, {
      connection: { ...servers.connection, options: '-c wal_sender_timeout=1500' },
      statusIntervalMs: 300,
    });
    let ended: unknown = null;
    own.stream.ended.catch((error: unknown) => {
      ended = error;
    });
    own.stream.pause();
    // More than the sockets' buffers hold, so that the server cannot get rid of it.
    await a.query(
      `insert into public.t select 200000 + i, repeat(md5(i::text), 500) from generate_series(1, 2000) i`,
    );
    await sleep(6000);
    expect(ended).toBeNull();
    expect(own.ids).toEqual([]);
    expect(await confirmedLsn('paused')).toBe(start);
    own.stream.resume();
    await until('everything arrives', () => own.ids.length === 2000);
    expect(own.ids).toEqual(Array.from({ length: 2000 }, (_, i) => 200001 + i));
    expect(ended).toBeNull();
  });

  it('is given up when it is half open: TM201 within a few status intervals', async () => {
    const wire = await cuttableWire(servers.connection.host!, servers.connection.port!);
    const own = await openOurs('half_open', await createSlot('half_open'), {
      connection: { ...servers.connection, host: '127.0.0.1', port: wire.port },
    });
    await until('it works', () => own.keepalives.length > 2);
    const cutAt = Date.now();
    wire.cut();
    await expect(own.stream.ended).rejects.toMatchObject({ code: 'TM201', retry: 'transient' });
    expect(Date.now() - cutAt).toBeLessThan(5000);
    await own.stream.close();
    wire.close();
  });

  it('is given up when it became half open while reading was paused, once reading goes on', async () => {
    const wire = await cuttableWire(servers.connection.host!, servers.connection.port!);
    const own = await openOurs('half_open_paused', await createSlot('half_open_paused'), {
      connection: { ...servers.connection, host: '127.0.0.1', port: wire.port },
    });
    await until('it works', () => own.keepalives.length > 2);
    own.stream.pause();
    wire.cut();
    await sleep(1000);
    own.stream.resume();
    await expect(own.stream.ended).rejects.toMatchObject({ code: 'TM201' });
    await own.stream.close();
    wire.close();
  });

  it('names a slot in use TM207 and a missing slot TM204', async () => {
    const start = await createSlot('busy');
    await openOurs('busy', start);
    await expect(openOurs('busy', start)).rejects.toMatchObject({ code: 'TM207' });
    await expect(openOurs('no_such_slot', start)).rejects.toMatchObject({ code: 'TM204' });
  });

  it('ends with TM201 when the server ends it, and not at all when we close it', async () => {
    const own = await openOurs('ended', await createSlot('ended'));
    await a.query(
      `select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = 'ended'`,
    );
    await expect(own.stream.ended).rejects.toMatchObject({ code: 'TM201' });
    await own.stream.close();
    await free('ended');
    const again = await openOurs('ended', await confirmedLsn('ended'));
    let ended = false;
    again.stream.ended.catch(() => {
      ended = true;
    });
    await again.stream.close();
    await sleep(200);
    expect(ended).toBe(false);
  });
});

/** A wire to the server that can go silent without closing, as a firewall does it. */
async function cuttableWire(
  host: string,
  port: number,
): Promise<{ port: number; cut(): void; close(): void }> {
  const sockets: Socket[] = [];
  let silent = false;
  const server: Server = createServer((near) => {
    const far = connect(port, host);
    sockets.push(near, far);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.on('error', () => undefined);
      from.on('data', (bytes) => {
        if (!silent) to.write(bytes);
      });
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as { port: number }).port,
    cut() {
      silent = true;
    },
    close() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
