/** Verify against a real Postgres on both sides, with a worker of our own in place of Kafka and the pipeline. */
import { spawnSync } from 'node:child_process';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { postgresSink } from '../../connectors/sinks/postgres/index.ts';
import { formatPosition, type Position, parseLsn, parsePosition } from '../../src/connector/position.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import { tableName } from '../../src/connector/shape.ts';
import type {
  MergeSink,
  MergeTable,
  Readable,
  Row,
  RowCount,
  RowEvent,
  RowState,
  SinkKind,
} from '../../src/connector/sink.ts';
import { Gates } from '../../src/deliver/gates.ts';
import { Ledger, type OwnedUnit } from '../../src/deliver/ledger.ts';
import { noSnapshots } from '../../src/deliver/snapshot-list.ts';
import { migrateControl } from '../../src/platform/control.ts';
import { TidemarkError } from '../../src/platform/errors.ts';
import { createLogger } from '../../src/platform/log.ts';
import { endpointFromUrl } from '../../src/platform/postgres-endpoint.ts';
import type { ResolvedConfig } from '../../src/platform/resolved-config.ts';
import { SourceLedger } from '../../src/publish/source-ledger.ts';
import { hasIdentity, trackedTables } from '../../src/replicate/catalogue.ts';
import { identifySource } from '../../src/replicate/source.ts';
import type { ParkedTables } from '../../src/verify/parked-tables.ts';
import type { TableReport, VerifyEvent, VerifyReport } from '../../src/verify/report.ts';
import { renderReport } from '../../src/verify/report-text.ts';
import { openSourceSnapshot } from '../../src/verify/source-snapshot.ts';
import { type VerifyOptions, verifyDestination } from '../../src/verify/verify-destination.ts';

const directory = resolve(import.meta.dirname, '..', '..', '.tidemark', `verify-test-${process.pid}`);
let stack: Stack;
let world: World;
let worlds = 0;

beforeAll(async () => {
  stack = await startStack({ directory, parts: ['postgres'] });
}, 120_000);
afterAll(async () => {
  await stack.stop();
  spawnSync('rm', ['-rf', directory]);
}, 60_000);
beforeEach(async () => {
  world = await World.make();
}, 30_000);
afterEach(() => world.end());

const log = createLogger({ level: 'error' });
const secondsOf = { timeoutMs: 20_000, limit: 20 };

/** A source, a replica, a control schema and a registry of their own, and what a reader would have left there. */
class World {
  readonly source: pg.Client;
  readonly replica: pg.Client;
  readonly control: pg.Pool;
  readonly config: ResolvedConfig;
  readonly sink: MergeSink & Readable;
  readonly worker: Worker;
  readonly #registry: Server;
  readonly #subjects = new Map<string, TableShape>();
  parked: ParkedTables = {};

  private constructor(parts: Omit<World, 'worker' | 'parked'> & { registry: Server }) {
    this.source = parts.source;
    this.replica = parts.replica;
    this.control = parts.control;
    this.config = parts.config;
    this.sink = parts.sink;
    this.#registry = parts.registry;
    this.worker = new Worker(this);
    parts.registry.on('request', ({ url }, response) => {
      const shape = this.#subjects.get(decodeURIComponent(url!.split('/')[2]!));
      response.statusCode = shape ? 200 : 404;
      response.end(JSON.stringify(shape ? { id: 1, version: 1, schema: schemaOf(shape) } : {}));
    });
  }

  static async make(): Promise<World> {
    const number = ++worlds;
    const url = (name: string) =>
      stack.environment.TIDEMARK_SOURCE_URL!.replace(/\/tidemark\b/, `/${name}_${number}`);
    const admin = await connect(stack.environment.TIDEMARK_SOURCE_URL!);
    for (const name of ['source', 'replica']) {
      const database = `${name}_${number}`;
      await admin.query(`create database ${database}`);
      // Neither side's defaults may have a say in what a value's text is.
      const odd = {
        datestyle: 'SQL, DMY',
        timezone: 'Asia/Tokyo',
        intervalstyle: 'iso_8601',
        bytea_output: 'escape',
      };
      for (const [setting, value] of Object.entries(
        name === 'source' ? odd : { ...odd, extra_float_digits: '-5' },
      ))
        await admin.query(`alter database ${database} set ${setting} = '${value}'`);
    }
    await admin.end();
    const registry = createServer().listen(0, '127.0.0.1');
    await new Promise((listening) => registry.once('listening', listening));
    const endpoint = await endpointFromUrl(url('source'));
    const config = {
      source: {
        id: 'hot',
        endpoint,
        slot: 'tidemark',
        publication: 'tidemark',
        tenantColumn: null,
        personalColumns: ['email'],
        hashKey: null,
        slotFailover: false,
        walBudget: null,
        tables: [{ pattern: 'app.*', tenantColumn: null, columns: {} }],
        heartbeatIntervalMs: 1000,
        statusIntervalMs: 5000,
        values: 'auto',
      },
      kafka: { topicPrefix: 'hot' },
      registry: {
        url: `http://127.0.0.1:${(registry.address() as { port: number }).port}`,
        username: null,
        password: null,
        tls: false,
      },
      control: endpoint,
      deliver: { spillDirectory: join(tmpdir(), `tidemark-verify-${process.pid}`) },
      destinations: [
        {
          name: 'replica',
          file: '',
          kind: 'postgres',
          tables: ['app.*'],
          tenant: null,
          cadenceMs: 0,
          tableCadenceMs: {},
          windowMaxRecords: 1000,
          pauseAfterMs: null,
          quarantineMaxRows: 1000,
          options: { 'connection.url': url('replica'), 'statement.timeout': 0, 'lock.timeout': 30_000 },
        },
      ],
    } as unknown as ResolvedConfig;
    const control = new pg.Pool({ connectionString: url('source'), max: 4 });
    control.on('error', () => {});
    await migrateControl(control);
    const sink = (await postgresSink.open(
      {
        sourceId: 'hot',
        destination: 'replica',
        scratchDirectory: tmpdir(),
        log: () => {},
        failpoint: async () => {},
      },
      config.destinations[0]!.options,
    )) as MergeSink & Readable;
    const ledger = new SourceLedger(control, 'hot');
    await ledger.beginEpoch(3, 'tidemark', await identifySource(config.source));
    await ledger.beginStreaming();
    const source = await connect(url('source'));
    await source.query('create schema app');
    return new World({
      source,
      replica: await connect(url('replica')),
      control,
      config,
      sink,
      registry,
    } as never);
  }

  /** As the reader would publish it: the columns that policy keeps. */
  async publish(name: string): Promise<TableShape> {
    const client = await connect(this.config.source.endpoint);
    const table = (await trackedTables(client, this.config.source)).find((found) => found.name === name)!;
    await client.end();
    const columns = table.columns
      .filter(({ personal }) => !personal)
      .map(({ name, type, identity }) => {
        const key = hasIdentity(table) && table.hasPrimaryKey && identity;
        return { name, type, key, nullable: !key };
      });
    const keyColumns = columns.flatMap(({ key }, i) => (key ? [i] : []));
    const shape = { schema: table.schema, name, columns, keyColumns, tenantColumn: null };
    this.#subjects.set(`hot.${tableName(shape)}-value`, shape);
    return shape;
  }

  verify(more: Partial<VerifyOptions> = {}): Promise<VerifyReport> {
    return verifyDestination({
      config: this.config,
      sinkKinds: new Map([['postgres', postgresSink]]),
      destination: 'replica',
      log,
      ...secondsOf,
      parkedTables: async () => this.parked,
      timing: { pollMs: 20, graceMs: 500 },
      ...more,
    });
  }

  async end(): Promise<void> {
    await this.worker.stop();
    await this.sink.close();
    this.#registry.close();
    this.#registry.closeAllConnections();
    await Promise.all(
      [this.source.end(), this.replica.end(), this.control.end()].map((end) => end.catch(() => {})),
    );
  }
}

function schemaOf({ schema, name, columns, keyColumns }: TableShape): string {
  const key = keyColumns.map((i) => columns[i]!.name);
  return JSON.stringify({ type: 'record', tidemark: { schema, name, columns, key, tenant: null } });
}

async function connect(to: string | object): Promise<pg.Client> {
  const client = new pg.Client(typeof to === 'string' ? { connectionString: to } : { ...to, ssl: false });
  client.on('error', () => {});
  await client.connect();
  return client;
}

interface Changes {
  states?: RowState[];
  counts?: RowCount[];
}

/** Delivers by the real ledger and sink. What it delivers it is given, or reads from a slot of its own. */
class Worker {
  readonly #world: World;
  #unit: OwnedUnit | null = null;
  #loop: Promise<void> | null = null;
  #stopped = false;
  /** Where a Window ends that was aimed at C: what a wrong worker would do. */
  cutAt = (target: bigint) => target;

  constructor(world: World) {
    this.#world = world;
  }

  async #own(): Promise<OwnedUnit> {
    const ledger = this.ledger;
    if (this.#unit) return this.#unit;
    await ledger.registerDestination('replica', 'postgres');
    const unit = await ledger.acquireUnit('replica', '*', 'test');
    const mark = { position: await this.#now(), commitTimeUs: 1n, offsets: {} };
    this.#unit = (await ledger.advanceEmpty(unit, mark))!;
    return this.#unit;
  }

  get ledger(): Ledger {
    return new Ledger(this.#world.control, 'hot');
  }

  async #now(): Promise<Position> {
    const { rows } = await this.#world.source.query('select pg_current_wal_insert_lsn() as lsn');
    return formatPosition({ epoch: 3, lsn: parseLsn(rows[0].lsn), ordinal: 0 });
  }

  /** One Window up to `to`; false where a hold forbids it. */
  async deliver(changes: [TableShape, Changes][], to?: Position): Promise<boolean> {
    const unit = await this.#own();
    const end = to ?? (await this.#now());
    if (changes.length === 0) {
      this.#unit = (await this.ledger.advanceEmpty(unit, { ...unit.mark!, position: end })) ?? unit;
      return this.#unit !== unit;
    }
    const cut = {
      from: unit.mark!.position,
      to: end,
      ingestOffsets: {},
      markOffsets: {},
      commitTimeUs: 2n,
      records: 1,
    };
    const open = await this.ledger.decideWindow(unit, cut, noSnapshots);
    if (!open) return false;
    const tables = changes.map(
      ([shape, { states = [], counts = [] }]): MergeTable => ({
        shape,
        truncated: false,
        snapshots: [],
        states: () => batches(states),
        counts: () => batches(counts),
        events: () => batches<RowEvent>([]),
      }),
    );
    const receipt = await this.#world.sink.mergeWindow({
      sourceId: 'hot',
      destination: 'replica',
      unit: '*',
      sequence: open.sequence,
      sweeps: [],
      from: open.from,
      to: open.to,
      fencingToken: unit.token,
      commitTimeUs: 2n,
      tables,
    });
    this.#unit = await this.ledger.recordDelivery(unit, open, {
      receipt,
      durationMs: 1,
      replayed: [],
      superseded: [],
      schemaIds: {},
      credentials: null,
    });
    return true;
  }

  /** Rows as the source prints them, read in another way than verify does. */
  async copy(shape: TableShape): Promise<void> {
    const text = { getTypeParser: () => (value: string) => value } as unknown as pg.CustomTypesConfig;
    const reader = await connect(this.#world.config.source.endpoint);
    await reader.query(`set datestyle = 'ISO'; set timezone = 'UTC'; set intervalstyle = 'postgres';
      set bytea_output = 'hex'; set extra_float_digits = 3`);
    const columns = shape.columns.map(({ name }) => pg.escapeIdentifier(name)).join(', ');
    const query = {
      text: `select ${columns} from ${tableName(shape)}`,
      rowMode: 'array' as const,
      types: text,
    };
    const { rows } = await reader.query<Row>(query);
    await reader.end();
    await this.deliver([[shape, changesOf(shape, rows)]]);
  }

  /** Reacts to holds and targets; delivers accounts and journal, where given, from a slot. */
  start(shapes: TableShape[] = []): void {
    const gates = new Gates(this.#world.control, 'hot', log);
    const pass = async () => {
      await this.#own();
      await gates.refresh();
      const { hold } = gates.of('replica');
      if (hold?.target && this.#unit!.mark!.position >= hold.target) return;
      if (hold && !hold.target) return;
      const target = hold?.target ?? (await this.#now());
      const upTo = this.cutAt(parsePosition(target).lsn);
      const { changes, end } =
        shapes.length > 0 ? await this.#decode(shapes, upTo) : { changes: [], end: null };
      if (!(await this.deliver(changes, target))) return;
      if (end)
        await this.#world.control.query(`select pg_replication_slot_advance('worker_${worlds}', $1)`, [end]);
    };
    this.#loop = (async () => {
      while (!this.#stopped) {
        await pass();
        await sleep(10);
      }
    })();
    this.#loop.catch(() => {});
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#loop;
  }

  /** Last state per key of all transactions whose commit record ends at or before `upTo` (test_decoding's text). */
  async #decode([accounts, journal]: TableShape[], upTo: bigint) {
    const { rows } = await this.#world.control.query<{ lsn: string; data: string }>(
      `select lsn, data from pg_logical_slot_peek_changes('worker_${worlds}', null, null, 'include-xids', '0', 'skip-empty-xacts', '1')`,
    );
    const states = new Map<string, RowState>();
    const counts: RowCount[] = [];
    let transaction: string[] = [];
    let end: string | null = null;
    for (const { lsn, data } of rows) {
      if (data === 'BEGIN') transaction = [];
      else if (data !== 'COMMIT') {
        // The ledger is in this database as well.
        if (data.startsWith('table app.')) transaction.push(data);
      } else {
        if (parseLsn(lsn) > upTo) break;
        end = lsn;
        for (const change of transaction) {
          const [, table, op] = /^table app\.(\w+): (\w+):/.exec(change)!;
          const values = [...change.matchAll(/\[\w+\]:(\d+)/g)].map((match) => match[1]!);
          if (table === 'journal') counts.push({ values, count: 1 });
          else if (op === 'DELETE')
            states.set(values[0]!, { op: 'delete', key: [values[0]!], position: upToText });
          else
            states.set(values[0]!, {
              op: 'upsert',
              key: [values[0]!],
              values,
              fillFrom: null,
              position: upToText,
            });
        }
      }
    }
    const changes: [TableShape, Changes][] = [];
    if (states.size > 0) changes.push([accounts!, { states: [...states.values()] }]);
    if (counts.length > 0) changes.push([journal!, { counts }]);
    return { changes, end };
  }
}

const upToText = formatPosition({ epoch: 3, lsn: 1n, ordinal: 1 });

async function* batches<T>(rows: T[]): AsyncGenerator<T[]> {
  if (rows.length > 0) yield rows;
}

function changesOf({ keyColumns }: TableShape, rows: Row[]): Changes {
  if (keyColumns.length === 0) return { counts: rows.map((values) => ({ values, count: 1 })) };
  const states = rows.map((values): RowState => {
    return {
      op: 'upsert',
      key: keyColumns.map((i) => values[i]!),
      values,
      fillFrom: null,
      position: upToText,
    };
  });
  return { states };
}

async function failure(work: Promise<unknown>): Promise<TidemarkError> {
  const error = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(TidemarkError);
  return error as TidemarkError;
}

async function leftovers() {
  const { rows: holds } = await world.control.query('select 1 from tidemark.holds');
  // A temporary slot goes with its server process, which takes a moment.
  for (let i = 0; ; i++) {
    const { rows } = await world.control.query(
      `select slot_name from pg_replication_slots where slot_name like 'tidemark_verify%'`,
    );
    if (rows.length === 0 || i === 40) return { holds: holds.length, slots: rows.length };
    await sleep(50);
  }
}

const none = { holds: 0, slots: 0 };
const tableOf = (report: VerifyReport, name: string): TableReport =>
  report.tables.find(({ table }) => table === `app.${name}`)!;

describe('while writes go on', () => {
  let accounts: TableShape;
  let journal: TableShape;
  let writers: Promise<void>[];
  let writing: boolean;

  beforeEach(async () => {
    await world.source.query(`create table app.accounts (id int primary key, balance int not null);
      create table app.journal (account int, amount int);
      insert into app.accounts select id, 1000 from generate_series(1, 50) id`);
    accounts = await world.publish('accounts');
    journal = await world.publish('journal');
    await world.source.query(
      `select pg_create_logical_replication_slot('worker_${worlds}', 'test_decoding')`,
    );
    await world.worker.copy(accounts);
    writing = true;
    writers = [1, 2, 3].map(async (writer) => {
      const client = await connect(world.config.source.endpoint);
      for (let n = writer; writing; n++) {
        await client.query('begin');
        for (const id of [(n % 50) + 1, ((n * 7) % 40) + 100])
          await client.query(
            'insert into app.accounts values ($1, $2) on conflict (id) do update set balance = excluded.balance',
            [id, n],
          );
        if (n % 5 === 0) await client.query('delete from app.accounts where id = $1', [((n * 3) % 40) + 100]);
        await client.query('insert into app.journal values ($1, $2)', [writer, n % 20]);
        await client.query(n % 11 === 0 ? 'rollback' : 'commit');
      }
      await client.end();
    });
  });
  afterEach(async () => {
    writing = false;
    await Promise.all(writers);
    await world.worker
      .stop()
      .finally(() => world.source.query(`select pg_drop_replication_slot('worker_${worlds}')`));
  });

  test('the destination equals the source at exactly the consistent point, again and again', async () => {
    world.worker.start([accounts, journal]);
    for (let round = 0; round < 5; round++) {
      await sleep(100);
      const report = await world.verify();
      expect(report.tables.filter(({ status }) => status !== 'equal')).toEqual([]);
      expect(report.equal).toBe(true);
      expect(tableOf(report, 'journal').sourceRows).toBeGreaterThan(0);
      expect(parsePosition(report.position)).toMatchObject({ epoch: 3, ordinal: 0 });
    }
    expect(await leftovers()).toEqual(none);
    const marks = async () => (await world.control.query('select mark from tidemark.units')).rows[0].mark;
    const before = await marks();
    await expect.poll(async () => (await marks()) > before, { timeout: 10_000 }).toBe(true);
  }, 60_000);

  test.each([
    ['short of', -1n],
    ['beyond', 1n],
  ])(
    'a worker that stops a few transactions %s the target is found out',
    async (_, direction) => {
      // By 4 KiB of WAL, which these writers fill in a moment.
      world.worker.cutAt = (target) => (direction > 0n ? 1n << 60n : target - 4096n);
      world.worker.start([accounts, journal]);
      await sleep(300);
      const report = await world.verify();
      expect(report.equal).toBe(false);
      const table = tableOf(report, 'journal');
      expect(direction > 0n ? table.extra : table.missing).toBeGreaterThan(0);
    },
    60_000,
  );
});

describe('differences', () => {
  test('missing, extra and different rows are named, with the columns that differ', async () => {
    await world.source.query(`create table app.users (org int, id int, name text, bio text, email text, primary key (org, id));
      insert into app.users select id % 3, id, 'name ' || id, null, 'secret' from generate_series(1, 5000) id`);
    const users = await world.publish('users');
    expect(users.columns.map(({ name }) => name)).not.toContain('email');
    await world.worker.copy(users);
    world.worker.start();
    expect(await world.verify()).toMatchObject({ equal: true });
    await world.replica.query(`delete from app.users where id = 17;
      insert into app.users values (9, 9999, 'nobody', null);
      update app.users set bio = '' where id = 4000; update app.users set name = 'x', bio = 'y' where id = 4001`);
    const logged: string[] = [];
    const report = await world.verify({
      log: createLogger({ level: 'debug', write: (line) => logged.push(line) }),
    });
    const table = tableOf(report, 'users');
    expect(table).toMatchObject({
      status: 'different',
      sourceRows: 5000,
      destinationRows: 5000,
      missing: 1,
      extra: 1,
      different: 2,
      countsExact: true,
    });
    const key = (org: number, id: number) => ({ org: String(org), id: String(id) });
    expect(table.keys).toHaveLength(4);
    expect(table.keys).toEqual(
      expect.arrayContaining([
        { kind: 'missing', key: key(2, 17), columns: [], count: 1 },
        { kind: 'extra', key: key(9, 9999), columns: [], count: 1 },
        { kind: 'different', key: key(1, 4000), columns: ['bio'], count: 1 },
        { kind: 'different', key: key(2, 4001), columns: ['name', 'bio'], count: 1 },
      ]),
    );
    expect(logged.join('')).not.toMatch(/9999|nobody/);
    expect(renderReport(report)).toMatch(
      /✗ app\.users.*1 missing, 1 extra, 2 different\n(.*\n)*.*org=1 id=4000: bio\n/,
    );
    const short = tableOf(await world.verify({ limit: 2 }), 'users');
    expect(short.keys).toHaveLength(2);
    expect(short).toMatchObject({ missing: 1, extra: 1, different: 2 });
  }, 30_000);

  test('rows that the source let go of are counted apart, and hide nothing else', async () => {
    await world.source.query(`create table app.users (id int primary key, name text);
      insert into app.users select id, 'name ' || id from generate_series(1, 20) id`);
    const users = await world.publish('users');
    await world.worker.copy(users);
    const evicted = ['3', '4', '5'];
    await world.source.query('delete from app.users where id = any ($1)', [evicted]);
    const retire = evicted.map((id): RowState => ({ op: 'retire', key: [id], position: upToText }));
    await world.worker.deliver([[users, { states: retire }]]);
    world.worker.start();
    const report = await world.verify();
    const table = tableOf(report, 'users');
    expect(report.equal).toBe(true);
    expect(table).toMatchObject({ status: 'equal', sourceRows: 17, destinationRows: 17, evicted: 3 });
    expect(renderReport(report)).toContain('3 rows that the source let go of');
    // One that the source still has, one that nobody let go of, and one that came back.
    await world.replica.query(`update app.users set _tidemark_retired = true where id = 7`);
    await world.source.query(
      `delete from app.users where id = 8; insert into app.users values (3, 'name 3')`,
    );
    const after = tableOf(await world.verify(), 'users');
    expect(after).toMatchObject({ status: 'different', missing: 2, extra: 1, different: 0, evicted: 4 });
    expect(after.keys.map(({ kind, key }) => [kind, key.id]).sort()).toEqual([
      ['extra', '8'],
      ['missing', '3'],
      ['missing', '7'],
    ]);
  }, 30_000);

  test('rows of a table without a key differ by how often they are there, and the hint says why', async () => {
    await world.source.query(`create table app.events (kind text, n int);
      insert into app.events select 'same', 1 from generate_series(1, 10); insert into app.events values ('once', null)`);
    await world.worker.copy(await world.publish('events'));
    world.worker.start();
    await world.source.query(`update app.events set n = 2 where kind = 'once'; delete from app.events where ctid in
      (select ctid from app.events where kind = 'same' limit 3)`);
    const table = tableOf(await world.verify(), 'events');
    expect(table).toMatchObject({
      status: 'different',
      sourceRows: 8,
      destinationRows: 11,
      missing: 1,
      extra: 4,
      different: 0,
    });
    expect(table.hint).toMatch(/no replica identity.*only its inserts/);
    expect(table.keys).toEqual(
      expect.arrayContaining([
        { kind: 'missing', key: { kind: 'once', n: '2' }, columns: [], count: 1 },
        { kind: 'extra', key: { kind: 'once', n: null }, columns: [], count: 1 },
        { kind: 'extra', key: { kind: 'same', n: '1' }, columns: [], count: 3 },
      ]),
    );
  });

  test('tables never published, parked, with new or dropped columns are told apart', async () => {
    await world.source.query(`create table app.old (id int primary key); insert into app.old values (1), (2);
      create table app.empty (id int primary key); create table app.parked (id int primary key);
      create table app.wide (id int primary key, gone text, stays text); insert into app.wide values (1, 'a', 'b');
      create table app.parts (id int primary key, n int) partition by range (id);
      create table app.parts_1 partition of app.parts for values from (0) to (10); insert into app.parts values (1, 1)`);
    for (const name of ['wide', 'parts']) await world.worker.copy(await world.publish(name));
    await world.publish('parked');
    await world.source.query(
      `alter table app.wide drop column gone; alter table app.wide add column fresh int`,
    );
    const at = formatPosition({ epoch: 3, lsn: 1n, ordinal: 1 });
    world.parked = { 'app.parked': { position: at, code: 'TM208', reason: 'its shape changed' } };
    world.worker.start();
    const report = await world.verify();
    expect(report.equal).toBe(false);
    expect(report.tables.map(({ table, status }) => [table, status])).toEqual([
      ['app.empty', 'equal'],
      ['app.old', 'not-replicated'],
      ['app.parked', 'parked'],
      ['app.parts', 'equal'],
      ['app.wide', 'equal'],
    ]);
    expect(tableOf(report, 'old')).toMatchObject({
      sourceRows: 2,
      destinationRows: null,
      hint: 'not replicated: 2 rows from before the slot',
    });
    expect(tableOf(report, 'parked').hint).toContain('its shape changed');
    expect(tableOf(report, 'wide').hint).toMatch(/gone, dropped.*fresh, new/);
    expect(renderReport(report)).toMatch(/differs from source hot in 2 of 5 tables/);
  });
});

const typedColumns: [type: string, literal: string][] = [
  ['boolean', 'true'],
  ['inet', `'10.0.0.1/32'`],
  ['cidr', `'10.0.0.0/8'`],
  ['character(7)', `'ab'`],
  ['"char"', `'x'`],
  ['numeric', `'NaN'`],
  ['numeric', `'-Infinity'`],
  ['numeric(12,4)', '12.5'],
  ['double precision', '0.1 + 0.2'],
  ['double precision', `'-0'`],
  ['double precision', `'NaN'`],
  ['real', '1e-7 / 3'],
  ['timestamp with time zone', `'infinity'`],
  ['timestamp with time zone', `'2024-02-29 23:59:59.999999+09'`],
  ['timestamp without time zone', `'-infinity'`],
  ['date', `'0044-03-15 BC'`],
  ['time with time zone', `'12:00:00.5+05:30'`],
  ['interval', `'1 year -2 days 03:04:05.6'`],
  ['jsonb', `'{"b": 1.10, "a": "\\u00fc\\t"}'`],
  ['json', `'{"b" : 1,  "a":[]}'`],
  ['text[]', `array['a,b', '"', null, '', 'NULL']`],
  ['integer[]', `'[0:1][2:3]={{1,2},{3,4}}'`],
  ['boolean[]', 'array[true, null]'],
  ['bytea', `'\\x00ff5c0a'`],
  ['text', `E'tab\\tline\\nback\\\\slash \\\\N'`],
  ['bit varying', `b'0101'`],
  ['uuid', `'00000000-0000-0000-0000-00000000000a'`],
  ['tstzrange', `'[2024-01-01 00:00+09,infinity)'`],
  ['point', `'(1.1,-2)'`],
  ['macaddr', `'08:00:2b:01:02:03'`],
];

test('values of every sort agree as Postgres prints them, whatever the settings of both databases', async () => {
  const columns = typedColumns.map(([type], i) => `c${i} ${type}`).join(', ');
  const values = typedColumns.map(([type, literal]) => `(${literal})::${type}`).join(', ');
  await world.source.query(`create table app.typed (id int primary key, ${columns});
    insert into app.typed select id, ${values} from generate_series(0, ${typedColumns.length}) id`);
  await world.worker.copy(await world.publish('typed'));
  world.worker.start();
  const equal = tableOf(await world.verify(), 'typed');
  expect(equal).toMatchObject({ status: 'equal', sourceRows: typedColumns.length + 1, hint: null });
  expect(equal.sourceHash).toBe(equal.destinationHash);
  // And each of them is looked at: the nth row loses its nth column.
  for (const i of typedColumns.keys())
    await world.replica.query(`update app.typed set c${i} = null where id = ${i}`);
  const { keys, different } = tableOf(await world.verify({ limit: 100 }), 'typed');
  expect(different).toBe(typedColumns.length);
  expect(keys.map(({ key, columns }) => [key.id, columns]).sort()).toEqual(
    typedColumns.map((_, i) => [String(i), [`c${i}`]]).sort(),
  );
}, 30_000);

describe('what stands in the way', () => {
  beforeEach(async () => {
    await world.source.query('create table app.t (id int primary key); insert into app.t values (1)');
    await world.worker.copy(await world.publish('t'));
  });

  test('transactions that began earlier are waited for, and named when they do not end', async () => {
    world.worker.start();
    const slow = await connect(world.config.source.endpoint);
    await slow.query('begin; insert into app.t values (2)');
    const { processID: pid } = slow as unknown as { processID: number };
    const events: VerifyEvent[] = [];
    const verifying = world.verify({ onProgress: (event) => events.push(event) });
    await expect
      .poll(() => events.filter(({ phase }) => phase === 'snapshot').length, { timeout: 10_000 })
      .toBeGreaterThan(2);
    expect(events[0]).toMatchObject({ phase: 'snapshot', transactions: 1, pids: [pid] });
    const error = await failure(world.verify());
    expect(error).toMatchObject({ code: 'TM408', message: expect.stringContaining('another verify holds') });
    await slow.query('rollback');
    expect(await verifying).toMatchObject({ equal: true });
    await slow.query('begin; insert into app.t values (2)');
    const late = await failure(world.verify({ timeoutMs: 700 }));
    expect(late).toMatchObject({ code: 'TM408', message: expect.stringContaining(`pid ${pid}`) });
    expect(await leftovers()).toEqual(none);
    await slow.end();
  }, 30_000);

  test.each(['snapshot', 'deliver', 'compare'])(
    'an interrupt releases the hold (%s)',
    async (phase) => {
      const slow = await connect(world.config.source.endpoint);
      if (phase === 'snapshot') await slow.query('begin; insert into app.t values (2)');
      if (phase === 'compare') world.worker.start();
      const interrupt = new AbortController();
      const stop = () => interrupt.abort(new Error('SIGINT'));
      const endless = {
        ...postgresSink,
        open: async () => ({ readTable: () => endlessRows(stop), close: async () => {} }),
      };
      const verifying = world.verify({
        signal: interrupt.signal,
        sinkKinds: new Map([['postgres', endless as unknown as SinkKind]]),
        onProgress: (event) => event.phase === phase && stop(),
      });
      await expect(verifying).rejects.toThrow('SIGINT');
      expect(await leftovers()).toEqual(none);
      await slow.end();
      world.worker.start();
      expect(await world.verify()).toMatchObject({ equal: true });
    },
    30_000,
  );

  test('a hold that expired under a verify makes it fail rather than trust what it read', async () => {
    world.worker.start();
    const expiring = {
      ...postgresSink,
      open: async () => ({
        async *readTable() {
          await world.control.query(`update tidemark.holds set expires_at = now() - interval '1 second'`);
          yield [['1']];
        },
        close: async () => {},
      }),
    };
    const error = await failure(
      world.verify({ sinkKinds: new Map([['postgres', expiring as unknown as SinkKind]]) }),
    );
    expect(error).toMatchObject({ code: 'TM408', message: expect.stringContaining('expired') });
    expect(await leftovers()).toEqual(none);
  });

  test('a hold is extended for as long as it takes, and one of a verify that died expires', async () => {
    // Short against how long the worker keeps verify waiting, long against a busy machine's pauses.
    const timing = { holdMs: 2000, pollMs: 20, graceMs: 500 };
    setTimeout(() => world.worker.start(), 5000);
    expect(await world.verify({ timing })).toMatchObject({ equal: true });
    await world.control.query(
      `insert into tidemark.holds values ('hot', 'replica', 'dead', null, now() + interval '4 s')`,
    );
    expect((await failure(world.verify({ timing }))).code).toBe('TM408');
    await sleep(4200);
    expect(await world.verify({ timing })).toMatchObject({ equal: true });
  });

  test('a destination without a worker is TM408, with when it was last seen', async () => {
    const events: VerifyEvent[] = [];
    const error = await failure(world.verify({ timeoutMs: 700, onProgress: (event) => events.push(event) }));
    expect(error).toMatchObject({
      code: 'TM408',
      message: expect.stringMatching(/replica has not reached .* last seen \d+ s ago/),
    });
    expect(events[0]).toMatchObject({
      phase: 'deliver',
      reached: 0,
      behind: [{ unit: '*', errorCode: null }],
    });
    await world.control.query('delete from tidemark.units');
    expect(await failure(world.verify())).toMatchObject({
      code: 'TM408',
      message: expect.stringContaining('no worker has ever'),
    });
    expect(await leftovers()).toEqual(none);
  });

  test("a worker's own error is the answer: at once where somebody must act, else when the time is over", async () => {
    const fail = (code: string) =>
      world.control.query(
        `update tidemark.units set error_code = $1, error = 'what it said', remedy = 'do this', error_at = now() + interval '1 s'`,
        [code],
      );
    await fail('TM405');
    const startedAt = performance.now();
    expect(await failure(world.verify())).toMatchObject({
      code: 'TM405',
      message: 'replica: what it said',
      remedy: 'do this',
    });
    expect(performance.now() - startedAt).toBeLessThan(5000);
    await fail('TM401');
    expect(await failure(world.verify({ timeoutMs: 600 }))).toMatchObject({
      code: 'TM401',
      remedy: 'do this',
    });
  });

  test('another server than the one the reader reads is refused', async () => {
    await world.control.query(`update tidemark.sources set system_identifier = '1'`);
    expect((await failure(world.verify())).code).toBe('TM205');
    await world.control.query(`update tidemark.sources set state = 'creating'`);
    expect((await failure(world.verify())).code).toBe('TM408');
  });

  test('a table truncated between snapshot and lock is not taken for an empty one', async () => {
    const { host, port, user, password, database } = world.config.source.endpoint;
    const truncate = `const { Client } = require('pg'); const client = new Client(${JSON.stringify({ host, port, user, password, database })});
      client.connect().then(() => client.query('truncate app.t')).then(() => client.end())`;
    let calls = 0;
    const snapshot = await openSourceSnapshot({
      source: world.config.source,
      known: (await new SourceLedger(world.control, 'hot').read())!,
      chosen() {
        if (calls++ === 0) expect(spawnSync(process.execPath, ['-e', truncate]).status).toBe(0);
        return true;
      },
      timeoutMs: 5000,
      pollMs: 100,
      signal: new AbortController().signal,
      onProgress: () => {},
    });
    // The first snapshot came before the truncate and was given up; the second sees it done.
    expect(calls).toBe(2);
    await snapshot.close();
  });

  test('a role that may read single columns only, and one that may not read at all', async () => {
    await world.source.query(`create table app.people (id int primary key, email text, name text);
      insert into app.people values (1, 'secret', 'kept'); create role reader_${worlds} login replication password 'reads';
      grant usage on schema app to reader_${worlds}; grant select on app.t to reader_${worlds}`);
    await world.worker.copy(await world.publish('people'));
    world.worker.start();
    const endpoint = { ...world.config.source.endpoint, user: `reader_${worlds}`, password: 'reads' };
    const config = { ...world.config, source: { ...world.config.source, endpoint } };
    const error = await failure(world.verify({ config }));
    expect(error).toMatchObject({
      code: 'TM202',
      remedy: expect.stringContaining('grant select on "app"."people"'),
    });
    await world.source.query(`grant select (id, name) on app.people to reader_${worlds}`);
    expect(await world.verify({ config })).toMatchObject({ equal: true });
  });
});

async function* endlessRows(stop: () => void): AsyncGenerator<Row[]> {
  stop();
  yield [];
  await new Promise(() => {});
}
