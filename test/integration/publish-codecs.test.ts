/** Values survive (invariant 9): every codec against a real Postgres, its own text, avsc, and a slow twin. */
import type { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { ByteReader, ByteWriter } from '../../src/publish/byte-writer.ts';
import { codecFor } from '../../src/publish/types/catalogue.ts';
import { avroOf, avscType, inexact } from '../fixtures/pgoutput/avro-twin.ts';
import { cases, replayable } from '../fixtures/pgoutput/replay.ts';
import { storedValues } from '../fixtures/pgoutput/stored.ts';
import { typeCases, typesSetup } from '../fixtures/pgoutput/values.ts';
import { startServers, startTimeoutMs, type TestServers } from '../fixtures/postgres.ts';

const randomValues = cases(150, 2000);

let servers: TestServers;
let client: Client;

beforeAll(async () => {
  servers = await startServers();
  client = await servers.connect();
  await client.query(typesSetup);
  await client.query(`set search_path = ''`);
}, startTimeoutMs);
afterAll(async () => {
  await client?.end();
  await servers?.stop();
}, 60_000);

vi.setConfig({ testTimeout: 60_000 });

describe('values survive', () => {
  it.each(typeCases)('$type', async ({ type, edges, random }) => {
    await replayable(async (prng) => {
      const literals = [...edges, ...Array.from({ length: randomValues }, () => random(prng))];
      const { name, enum: labels, values } = await storedValues(client, type, literals);
      const codec = codecFor({ type: name, ...(labels ? { enum: labels } : {}) });
      expect(codec, name).not.toBeNull();
      const avro = avscType(codec!.schema);
      const twinType = labels ? (name.endsWith('[]') ? 'text[]' : 'text') : name;
      const out = new ByteWriter(64);
      for (const { binary, text } of values) {
        // In the middle of a message, as in the stream.
        const message = Buffer.concat([prng.bytes(prng.integer(0, 9)), binary, prng.bytes(9)]);
        const start = message.length - 9 - binary.length;
        expect(codec!.text(message, start, start + binary.length)).toBe(text);
        const twin = avroOf(twinType, text);
        out.mark();
        const encoded = codec!.encode(message, start, start + binary.length, out);
        const bytes = out.take();
        expect(encoded, text).toBe(twin !== inexact);
        if (!encoded) continue;
        expect(avro.fromBuffer(bytes), text).toEqual(twin);
        const reader = new ByteReader(Buffer.concat([bytes, Buffer.from([0xff])]));
        expect(codec!.decode(reader)).toBe(text);
        expect(reader.position, text).toBe(bytes.length);
      }
    });
  });

  it.each([
    'money',
    'bit(3)',
    'point',
    'tsvector',
    'int4range',
    'time with time zone',
    '"char"',
    'pg_lsn',
    'app.domain',
  ])('a type without an exact form has no codec: %s', (type) => {
    expect(codecFor({ type })).toBeNull();
    expect(codecFor({ type: `${type}[]` })).toBeNull();
  });
});
