/** TableEncoder against a slow twin (plain objects, avsc), and its records read back by others and by ourselves. */
import { SchemaRegistry, SchemaType } from '@kafkajs/confluent-schema-registry';
import type avsc from 'avsc';
import pg, { type Client } from 'pg';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { ColumnShape, TableShape } from '../../src/connector/shape.ts';
import type { PartialRow } from '../../src/connector/sink.ts';
import { keySchema, valueSchema } from '../../src/publish/avro-schema.ts';
import { ByteWriter } from '../../src/publish/byte-writer.ts';
import {
  applyHeaders,
  compileEnvelopeDecoder,
  compileKeyDecoder,
} from '../../src/publish/envelope-decoder.ts';
import type { TransactionContext } from '../../src/publish/envelope-frame.ts';
import { unavailableValue } from '../../src/publish/record-format.ts';
import { TableEncoder } from '../../src/publish/table-encoder.ts';
import type { Codec } from '../../src/publish/types/codec.ts';
import { decodeMessage, type PgoutputHandler, type Tuple } from '../../src/replicate/pgoutput.ts';
import type { Prng } from '../../src/sample/prng.ts';
import {
  avroOf,
  avscType,
  inexact,
  isExact,
  Kept,
  longHook,
  twinType,
} from '../fixtures/pgoutput/avro-twin.ts';
import { cases, replayable } from '../fixtures/pgoutput/replay.ts';
import { readerCodec, type StoredType, type StoredValue, storedValues } from '../fixtures/pgoutput/stored.ts';
import { hostileNames, typeCases, typesSetup } from '../fixtures/pgoutput/values.ts';
import { type WireTuple, write } from '../fixtures/pgoutput/writer.ts';
import { startServers, startTimeoutMs, type TestServers, textRows } from '../fixtures/postgres.ts';
import { passedCells } from './native-cells.ts';

vi.setConfig({ testTimeout: 120_000, hookTimeout: startTimeoutMs });

/** A type with real values of it. */
interface Pool extends StoredType {
  declared: string;
  /** For the twin, to which an enum is text. */
  twinType: string;
  exact: StoredValue[];
}

let servers: TestServers;
let client: Client;
let registry: SchemaRegistry;
const pools: Pool[] = [];

beforeAll(async () => {
  servers = await startServers(['postgres', 'registry']);
  client = await servers.connect();
  await client.query(typesSetup);
  await client.query(`set search_path = ''`);
  registry = new SchemaRegistry(
    { host: servers.registryUrl },
    { [SchemaType.AVRO]: { typeHook: longHook } as never },
  );
  await replayable(async (prng) => {
    for (const { type, edges, random } of typeCases) {
      const literals = [...edges, ...Array.from({ length: 20 }, () => random(prng))];
      const stored = await storedValues(client, type, literals);
      const twin = twinType(stored.column);
      const exact = stored.values.filter(({ text }) => isExact(avroOf(twin, text)));
      pools.push({ ...stored, declared: type, twinType: twin, exact });
    }
  });
});
afterAll(async () => {
  await client?.end();
  await servers?.stop();
});

const identity = { serverName: 'prefix', database: 'db', version: '9.9' };

/** A column's value in a change: the wire's form and Postgres' text; undefined: unchanged TOAST. */
type Cell = StoredValue | null | undefined;

interface Table {
  shape: TableShape;
  pools: Pool[];
  /** Where in the tuple each column is; the places between are columns that the policy drops. */
  tupleIndex: number[];
  width: number;
  topic: string;
}

function codecsOf({ shape, pools: of }: Pick<Table, 'shape' | 'pools'>): Codec[] {
  return shape.columns.map(({ key }, i) => readerCodec(of[i]!, key));
}

function anyTable(prng: Prng): Table {
  const names = prng.some(hostileNames, prng.integer(1, 14));
  const chosen = names.map(() => prng.pick(pools));
  const columns = names.map((name, i): ColumnShape => {
    const key = chosen[i]!.exact.length > 0 && prng.chance(0.25);
    return { name, ...chosen[i]!.column, key, nullable: !key };
  });
  const places = Array.from({ length: columns.length + prng.integer(0, 3) }, (_, i) => i);
  return {
    shape: {
      schema: prng.pick(hostileNames),
      name: prng.pick(hostileNames),
      columns,
      keyColumns: columns.flatMap(({ key }, i) => (key ? [i] : [])),
      tenantColumn: prng.chance(0.5) ? prng.integer(0, columns.length - 1) : null,
    },
    pools: chosen,
    tupleIndex: prng.some(places, columns.length).sort((a, b) => (prng.chance(0.5) ? a - b : b - a)),
    width: places.length,
    topic: 'prefix.public.t',
  };
}

function anyRow(prng: Prng, { shape, pools: of }: Table): (StoredValue | null)[] {
  return shape.columns.map(({ key }, i) =>
    key ? prng.pick(of[i]!.exact) : prng.chance(0.15) ? null : prng.pick(of[i]!.values),
  );
}

/** Binary or text, as the stream is read. */
type ValueForm = 'binary' | 'text';

function wire(prng: Prng, table: Table, row: Cell[], form: ValueForm): WireTuple {
  const tuple: WireTuple = Array.from({ length: table.width }, () => prng.pick([null, prng.bytes(5)]));
  row.forEach((cell, i) => {
    const value = cell && (form === 'binary' ? cell.binary : { text: cell.text });
    tuple[table.tupleIndex[i]!] = cell === undefined ? 'unchanged' : (value ?? null);
  });
  return tuple;
}

/** What stands for an unchanged TOAST value: the placeholder where the Avro type can hold text. */
function placeholder(type: unknown): unknown {
  const kind = (schema: unknown) => (schema as { type?: unknown }).type ?? schema;
  if (kind(type) === 'string') return unavailableValue;
  if (type === 'bytes') return Buffer.from(unavailableValue);
  if (kind(type) === 'array' && kind((type as { items: unknown[] }).items[1]) === 'string')
    return [unavailableValue];
  return null;
}

interface SchemaField {
  name: string;
  type: unknown[];
}

/** The twin's envelope as plain objects, and what it leaves to the headers. */
function twinEnvelope(
  table: Table,
  op: string,
  before: Cell[] | null,
  after: Cell[] | null,
  fill: Cell[] | null,
  transaction: TransactionContext,
  nowMs: number,
) {
  const schema = JSON.parse(valueSchema(table.shape, table.topic));
  const fields = schema.fields[0].type[1].fields as SchemaField[];
  const unchanged: string[] = [];
  const exact: [string, string][] = [];
  const record = (row: Cell[], from: Cell[] | null, remark: boolean) =>
    Object.fromEntries(
      row.map((value, i) => {
        const cell = value === undefined && from ? from[i] : value;
        const { name } = table.shape.columns[i]!;
        const field = fields[i]!;
        if (cell === null) return [field.name, null];
        if (cell === undefined) {
          if (remark) unchanged.push(name);
          return [field.name, placeholder(field.type[1])];
        }
        const { twinType } = table.pools[i]!;
        const avro = table.shape.columns[i]!.key
          ? keyAvroOf(twinType, cell.text)
          : avroOf(twinType, cell.text);
        if (!isExact(avro) && remark) exact.push([name, cell.text]);
        return [field.name, avro === inexact ? null : avro instanceof Kept ? avro.value : avro];
      }),
    );
  const now = BigInt(nowMs);
  const { commitTimeUs, commitLsn, previousCommitLsn, xid } = transaction;
  const object = {
    before: before && record(before, null, op === 'd'),
    after: after && record(after, fill, true),
    source: {
      version: '9.9',
      connector: 'postgresql',
      name: 'prefix',
      ts_ms: commitTimeUs / 1000n,
      snapshot: 'false',
      db: 'db',
      sequence: `["${previousCommitLsn}","${commitLsn}"]`,
      ts_us: commitTimeUs,
      ts_ns: commitTimeUs * 1000n,
      schema: table.shape.schema,
      table: table.shape.name,
      txId: BigInt(xid),
      lsn: commitLsn,
      xmin: null,
    },
    transaction: null,
    op,
    ts_ms: now,
    ts_us: now * 1000n,
    ts_ns: now * 1000000n,
  };
  return { object, unchanged, exact };
}

/** In a key, instants from Debezium's infinity on stand far below every other. */
function keyAvroOf(type: string, text: string): unknown {
  const value = avroOf(type, text);
  const infinity = 9223372036825200000n;
  if (type !== 'timestamp without time zone' || typeof value !== 'bigint' || value < infinity) return value;
  return value - infinity - 9000000000000000000n;
}

function twinKey({ shape, pools: of, topic }: Table, row: Cell[]) {
  const schema = JSON.parse(keySchema(shape, topic)!);
  const object = Object.fromEntries(
    shape.keyColumns.map((column, i) => [
      (schema.fields as SchemaField[])[i]!.name,
      keyAvroOf(of[column]!.twinType, row[column]!.text),
    ]),
  );
  return { schema, object };
}

function framed(schemaId: number, type: avsc.Type, object: unknown): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(schemaId, 1);
  return Buffer.concat([head, type.toBuffer(object)]);
}

const nothing = () => undefined;
const ignoring: PgoutputHandler = {
  begin: nothing,
  commit: nothing,
  relation: nothing,
  insert: nothing,
  update: nothing,
  delete: nothing,
  truncate: nothing,
  message: nothing,
};

/** As the decoder hands them over: both tuples inside one message. */
function tuples(
  before: WireTuple | null,
  after: WireTuple,
  use: (before: Tuple | null, after: Tuple) => void,
): void {
  const message = write.update(1, before && { kind: 'O', values: before }, after);
  decodeMessage(message, { ...ignoring, update: (_oid, old, _full, now) => use(old, now) });
}

describe('TableEncoder', () => {
  it('is byte-equal to avsc over plain objects, and its headers give Postgres’ text back', () =>
    replayable((prng) => {
      for (let t = 0; t < cases(150, 900); t++) {
        const table = anyTable(prng);
        const { shape, topic, tupleIndex } = table;
        const schema = valueSchema(shape, topic);
        const avro = avscType(JSON.parse(schema));
        const decoder = compileEnvelopeDecoder(schema);
        const [keySchemaId, valueSchemaId] = [prng.uint32(), prng.uint32()];
        const encoder = new TableEncoder({
          shape,
          topic,
          tupleIndex,
          keySchemaId,
          valueSchemaId,
          identity,
          codecs: codecsOf(table),
        });
        const form = prng.pick<ValueForm>(['binary', 'text']);
        const out = new ByteWriter(prng.pick([64, 5000]));
        for (let r = 0; r < 12; r++) {
          const transaction: TransactionContext = {
            commitLsn: prng.bytes(8).readBigUInt64BE() >> 8n,
            commitTimeUs: BigInt(prng.integer(0, 4e15)),
            xid: prng.uint32(),
            previousCommitLsn: BigInt(prng.uint32()),
            serial: prng.pick([r, t * 100 + r]),
          };
          const nowMs = prng.integer(0, 4e12);
          const old = anyRow(prng, table);
          // An update leaves some TOASTed values unchanged: not in the stream, unless the old row is there in full.
          const now: Cell[] = anyRow(prng, table).map((cell, i) =>
            !shape.columns[i]!.key && old[i] && prng.chance(0.2) ? undefined : cell,
          );
          const keyOnly = old.map((cell, i) => (shape.columns[i]!.key ? cell : null));
          const [op, before, after, fill] = prng.pick<
            ['c' | 'u' | 'd' | 't', Cell[] | null, Cell[] | null, Cell[] | null]
          >([
            ['c', null, anyRow(prng, table), null],
            ['c', null, now, old],
            ['u', null, now, null],
            ['u', old, now, old],
            ['d', keyOnly, null, null],
            ['d', old, null, null],
            ['t', null, null, null],
          ]);
          const twin = twinEnvelope(table, op, before, after, fill, transaction, nowMs);
          const spare = Array.from({ length: table.width }, () => null);
          tuples(
            before || fill ? wire(prng, table, (before ?? fill)!, form) : null,
            after ? wire(prng, table, after, form) : spare,
            (oldTuple, newTuple) => {
              const value = encoder.encodeEnvelope(
                op,
                before && oldTuple,
                after && newTuple,
                fill && oldTuple,
                transaction,
                nowMs,
                out,
              );
              expect(value).toEqual(framed(valueSchemaId, avro, twin.object));
              const { unchanged, exact } = encoder.remarks;
              expect(unchanged).toEqual(twin.unchanged);
              // JavaScript puts names that look like numbers first.
              expect(Object.entries(exact ?? {}).sort()).toEqual(twin.exact.sort());

              const decoded = decoder.decode(value);
              expect(decoded).toMatchObject({ op, commitTimeUs: transaction.commitTimeUs });
              const headers = [
                unchanged.length > 0 ? JSON.stringify(unchanged) : null,
                exact && JSON.stringify(exact),
              ] as const;
              const texts = (row: Cell[], from: Cell[] | null) =>
                row.map((cell, i) => {
                  const known = cell === undefined && from ? from[i] : cell;
                  return known === undefined ? undefined : (known?.text ?? null);
                });
              expect(decoded.after && applyHeaders(decoded.after, shape, ...headers)).toEqual(
                after && texts(after, fill),
              );
              if (op === 'd')
                expect(applyHeaders(decoded.before!, shape, ...headers)).toEqual(texts(before!, null));

              const frame = decoder.frame(value, 0, value.length);
              expect(decoder.afterAt(value, 0, value.length)).toBe(frame.afterAt);
              for (const [at, end, row] of [
                [frame.beforeAt, frame.beforeEnd, decoded.before],
                [frame.afterAt, frame.afterEnd, decoded.after],
              ] as const) {
                if (at < 0) continue;
                expect(decoder.rowEnd(value, at)).toBe(end);
                const passed = passedCells(decoder, value, at);
                expect(passed.all).toEqual(row);
                expect(passed.texts).toEqual(row);
                expect(passed.even).toEqual(row!.map((cell, i) => (i % 2 === 0 ? cell : undefined)));
              }

              const keyRow = after ?? before;
              if (keyRow && !encoder.keyless) {
                const key = encoder.encodeKey((after ? newTuple : oldTuple)!, oldTuple, out);
                const { schema: ofKey, object } = twinKey(table, keyRow);
                expect(key).toEqual(framed(keySchemaId, avscType(ofKey), object));
                expect(compileKeyDecoder(schema)(key)).toEqual(
                  shape.keyColumns.map((column) => keyRow[column]!.text),
                );
              }
            },
          );
        }
      }
    }));

  it('refuses a key without a value and a NULL in the key: TM206; an inexact key: TM208', async () => {
    const shape: TableShape = {
      schema: 'public',
      name: 't',
      columns: [{ name: 'k', type: 'interval', key: true, nullable: false }],
      keyColumns: [0],
      tenantColumn: null,
    };
    const encoder = new TableEncoder({
      shape,
      topic: 't',
      tupleIndex: [0],
      keySchemaId: 1,
      valueSchemaId: 2,
      identity,
    });
    const transaction = { commitLsn: 1n, commitTimeUs: 1n, xid: 1, previousCommitLsn: 0n, serial: 1 };
    const month = pools
      .find(({ column }) => column.type === 'interval')!
      .values.find(({ text }) => text === '1 mon')!;
    const out = new ByteWriter();
    for (const [value, code] of [
      [null, 'TM206'],
      ['unchanged', 'TM206'],
      [month.binary, 'TM208'],
      [{ text: month.text }, 'TM208'],
    ] as const) {
      tuples(null, [value], (_, after) => {
        const refused = expect.objectContaining({ code });
        expect(() => encoder.encodeKey(after, null, out)).toThrow(refused);
        expect(() => encoder.encodeEnvelope('c', null, after, null, transaction, 1, out)).toThrow(refused);
      });
    }
  });
});

describe('from a table to a consumer', () => {
  it('registered schemas: another program reads what avsc would, and the rows are Postgres’ own', () =>
    replayable(async (prng) => {
      for (let t = 0; t < cases(6, 30); t++) await roundTrip(prng, `public.r${t}`, t);
    }));
});

/** Creates a table, changes it, reads the stream, encodes, registers, decodes, and rebuilds the table's rows. */
async function roundTrip(prng: Prng, name: string, number: number): Promise<void> {
  const usable = pools.filter(({ declared }) => !declared.startsWith('interval y'));
  const chosen = prng.some(usable, 15);
  const idPool = pools.find(({ declared }) => declared === 'bigint')!;
  const full = number % 2 === 1;
  const shape: TableShape = {
    schema: 'public',
    name: name.slice(7),
    columns: [
      { name: 'id', type: 'bigint', key: true, nullable: false },
      ...chosen.map(({ column }, i) => ({ name: `c ${i}`, ...column, key: false, nullable: true })),
    ],
    keyColumns: [0],
    tenantColumn: null,
  };
  const quoted = shape.columns.map((column) => pg.escapeIdentifier(column.name));
  const declared = ['bigint primary key', ...chosen.map((pool) => pool.declared)];
  await client.query(
    `create table ${name} (${quoted.map((column, i) => `${column} ${declared[i]}`)}) with (toast_tuple_target = 128)`,
  );
  if (full) await client.query(`alter table ${name} replica identity full`);
  await client.query(`create publication ${shape.name} for table ${name}`);
  await client.query(`select pg_create_logical_replication_slot($1, 'pgoutput')`, [shape.name]);
  const ids = prng.some(idPool.values, 12).map(({ text }) => text);
  const value = (i: number) => (prng.chance(0.2) ? null : prng.pick(chosen[i]!.values).text);
  for (const id of new Set(ids)) {
    const row = [id, ...chosen.map((_, i) => value(i))];
    const cells = row.map((_, i) => `$${i + 1}::${i === 0 ? 'bigint' : declared[i]}`);
    await client.query(`insert into ${name} values (${cells})`, row);
  }
  for (let i = 0; i < 20; i++) {
    const column = prng.integer(0, chosen.length - 1);
    await client.query(
      `update ${name} set ${quoted[column + 1]} = $1::${declared[column + 1]} where id = $2`,
      [value(column), prng.pick(ids)],
    );
  }
  await client.query(`delete from ${name} where id = $1`, [ids[0]]);

  const topic = `prefix.public.${shape.name}`;
  const schema = valueSchema(shape, topic);
  const register = async (subject: string, text: string) =>
    (await registry.register({ type: SchemaType.AVRO, schema: text }, { subject })).id;
  const valueSchemaId = await register(`${topic}-value`, schema);
  const keySchemaId = await register(`${topic}-key`, keySchema(shape, topic)!);
  const encoder = new TableEncoder({
    shape,
    topic,
    tupleIndex: shape.columns.map((_, i) => i),
    keySchemaId,
    valueSchemaId,
    identity,
    codecs: codecsOf({ shape, pools: [idPool, ...chosen] }),
  });
  const { rows: stream } = await client.query(
    `select data from pg_logical_slot_get_binary_changes($1, null, null, 'proto_version', '1', 'publication_names', $2, 'binary', $3)`,
    [shape.name, shape.name, String(prng.chance(0.5))],
  );
  await client.query('select pg_drop_replication_slot($1)', [shape.name]);

  interface Written {
    key: Buffer;
    value: Buffer;
    unchanged: string | null;
    exact: string | null;
  }
  const records: Written[] = [];
  const out = new ByteWriter();
  let transaction: TransactionContext = {
    commitLsn: 0n,
    commitTimeUs: 0n,
    xid: 0,
    previousCommitLsn: 0n,
    serial: 0,
  };
  const add = (op: 'c' | 'u' | 'd', before: Tuple | null, after: Tuple | null, fill: Tuple | null) => {
    const key = encoder.encodeKey((after ?? before)!, before, out);
    const bytes = encoder.encodeEnvelope(op, op === 'd' ? before : fill, after, fill, transaction, 1, out);
    const { unchanged, exact } = encoder.remarks;
    records.push({
      key,
      value: bytes,
      unchanged: unchanged.length > 0 ? JSON.stringify(unchanged) : null,
      exact: exact && JSON.stringify(exact),
    });
  };
  for (const { data } of stream) {
    decodeMessage(data, {
      ...ignoring,
      begin: (start) => {
        transaction = { ...start, previousCommitLsn: transaction.commitLsn, serial: transaction.serial + 1 };
      },
      insert: (_oid, after) => add('c', null, after, null),
      update: (_oid, before, isFull, after) => add('u', before, after, isFull ? before : null),
      delete: (_oid, before) => add('d', before, null, null),
    });
  }
  expect(records.length).toBeGreaterThan(10);

  // Somebody else's reader, which knows the registry and Avro alone.
  const avro = avscType(JSON.parse(schema));
  for (const { key, value: bytes } of records) {
    expect(await registry.decode(bytes)).toEqual(avro.fromBuffer(bytes.subarray(5)));
    expect(await registry.decode(key)).toHaveProperty('id');
  }

  // Ours.
  const decoder = compileEnvelopeDecoder(schema);
  const keyOf = compileKeyDecoder(schema);
  const state = new Map<string, PartialRow>();
  for (const { key, value: bytes, unchanged, exact } of records) {
    const { op, after } = decoder.decode(bytes);
    const [id] = keyOf(key);
    if (op === 'd') {
      state.delete(id!);
      continue;
    }
    const row = applyHeaders(after!, shape, unchanged, exact);
    state.set(
      id!,
      row.map((cell, i) => (cell === undefined ? state.get(id!)![i] : cell)),
    );
  }
  const byId = (rows: PartialRow[]) => rows.sort((x, y) => (x[0]! < y[0]! ? -1 : 1));
  expect(byId([...state.values()])).toEqual(byId(await textRows(client, `select * from ${name}`)));
}
