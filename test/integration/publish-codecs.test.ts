/** Values survive (invariant 9): every codec against a real Postgres, its own text, avsc, and a slow twin. */
import type { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { ByteReader, ByteWriter } from '../../src/publish/byte-writer.ts';
import { codecFor } from '../../src/publish/types/catalogue.ts';
import { keyForm } from '../../src/replicate/source-types.ts';
import type { Prng } from '../../src/sample/prng.ts';
import { avroOf, avscType, inexact, isExact, Kept, twinType } from '../fixtures/pgoutput/avro-twin.ts';
import { cases, replayable } from '../fixtures/pgoutput/replay.ts';
import { readerCodec, type StoredType, storedValues } from '../fixtures/pgoutput/stored.ts';
import { nestedCase, typeCases, typesSetup } from '../fixtures/pgoutput/values.ts';
import { startServers, startTimeoutMs, type TestServers } from '../fixtures/postgres.ts';

const randomValues = cases(150, 2000);

/** Types with a btree order whose values a header sometimes completes. */
const keyCases = typeCases.filter(({ type }) =>
  /^(date|timestamp.*|time.*|interval|numeric.*|bit.*|money|integer\[\]|text\[\]|app\.hours|int4range)$/.test(
    type,
  ),
);

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
      await survive(prng, await storedValues(client, type, literals));
    });
  });

  it('composites, arrays, ranges and domains in one another', async () => {
    await replayable(async (prng) => {
      for (let i = 0; i < cases(8, 60); i++) {
        const { setup, type, random } = nestedCase(prng, i);
        await client.query(setup);
        await survive(
          prng,
          await storedValues(
            client,
            type,
            Array.from({ length: 40 }, () => random(prng)),
          ),
        );
      }
    });
  });

  it.each(keyCases)('a key holds every value exactly: $type', async ({ type, edges, random }) => {
    await replayable(async (prng) => {
      const literals = [...edges, ...Array.from({ length: randomValues }, () => random(prng))];
      const stored = await storedValues(client, type, literals);
      const column = { ...stored.column, ...keyForm(stored.column) };
      const codec = readerCodec({ ...stored, column }, true);
      const consumer = codecFor({ ...column, key: true });
      const seen = new Map<string, string>();
      for (const { binary, text } of stored.values) {
        const forms = [
          encoded(prng, binary, (...value) => codec.encode(...value)),
          encoded(prng, Buffer.from(text), (...value) => codec.encodeText(...value)),
        ];
        expect(forms[0], text).toMatchObject({ usable: true, inexact: false });
        expect(forms[1], text).toEqual(forms[0]);
        expect(consumer.decode(new ByteReader(forms[0]!.bytes))).toBe(text);
        const hex = forms[0]!.bytes.toString('hex');
        expect(seen.get(hex) ?? text, hex).toBe(text);
        seen.set(hex, text);
      }
    });
  });
});

/** Where a value was encoded, in the middle of a message, as in the stream. */
function encoded(
  prng: Prng,
  value: Buffer,
  encode: (message: Buffer, start: number, end: number, out: ByteWriter) => boolean,
): { usable: boolean; inexact: boolean; bytes: Buffer } {
  const message = Buffer.concat([prng.bytes(prng.integer(0, 9)), value, prng.bytes(9)]);
  const start = message.length - 9 - value.length;
  const out = new ByteWriter(64);
  out.mark();
  const usable = encode(message, start, start + value.length, out);
  return { usable, inexact: usable && out.inexact, bytes: usable ? out.take() : Buffer.alloc(0) };
}

async function survive(prng: Prng, stored: StoredType): Promise<void> {
  const { column, values } = stored;
  const codec = readerCodec(stored);
  const consumer = codecFor(column);
  const avro = avscType(codec.schema);
  const twinName = twinType(column);
  for (const { binary, text } of values) {
    expect(codec.text(binary, 0, binary.length)).toBe(text);
    const form = encoded(prng, binary, (...value) => codec.encode(...value));
    const fromText = encoded(prng, Buffer.from(text), (...value) => codec.encodeText(...value));
    expect(fromText, text).toEqual(form);
    const twin = avroOf(twinName, text);
    expect(form.usable, text).toBe(twin !== inexact);
    if (!form.usable) continue;
    expect(form.inexact, text).toBe(!isExact(twin));
    expect(avro.fromBuffer(form.bytes), text).toEqual(twin instanceof Kept ? twin.value : twin);
    const reader = new ByteReader(Buffer.concat([form.bytes, Buffer.from([0xff])]));
    const decoded = consumer.decode(reader);
    if (!form.inexact) expect(decoded).toBe(text);
    expect(reader.position, text).toBe(form.bytes.length);
  }
}
