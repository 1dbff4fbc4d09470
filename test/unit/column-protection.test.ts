/** Personal data leaves Postgres only as the policy says: masks, keyed hashes, and messages of parked tables. */
import { createHmac } from 'node:crypto';
import { describe, expect, it, test } from 'vitest';
import type { ColumnShape, TableShape } from '../../src/connector/shape.ts';
import { columnPolicies, isMask, isProtecting, type MaskForm } from '../../src/platform/column-policy.ts';
import type { SourceConfig } from '../../src/platform/resolved-config.ts';
import { sameSchema, shapeOfSchema, valueSchema } from '../../src/publish/avro-schema.ts';
import { ByteWriter } from '../../src/publish/byte-writer.ts';
import {
  applyHeaders,
  compileEnvelopeDecoder,
  compileKeyDecoder,
} from '../../src/publish/envelope-decoder.ts';
import { type ParkedColumn, ParkedMessages, parkedNote } from '../../src/publish/parked-messages.ts';
import { TableEncoder } from '../../src/publish/table-encoder.ts';
import { laterNote, parseShapeNote, type ShapeNote } from '../../src/replicate/column-origins.ts';
import { ColumnProtector, hashKeyId, protectionOf } from '../../src/replicate/column-protection.ts';
import { KeyedHash } from '../../src/replicate/keyed-hash.ts';
import { fixedMask, mask } from '../../src/replicate/masks.ts';
import { decodeMessage, type PgoutputHandler, type Relation } from '../../src/replicate/pgoutput.ts';
import { protectedRows } from '../../src/verify/protected-rows.ts';
import { cases, replayable } from '../fixtures/pgoutput/replay.ts';
import { type WireTuple, write } from '../fixtures/pgoutput/writer.ts';

const hashKey = 'a key of more than thirty-two characters';
const forms = columnPolicies.filter(isMask).map((policy) => policy.slice('mask:'.length) as MaskForm);

describe('masks say what is documented, and of anything else nothing', () => {
  test.each<[MaskForm, string, string]>([
    ['full', 'anything', '***'],
    ['full', '', '***'],
    ['email', 'ada@example.com', 'a***@example.com'],
    ['email', 'a@example.com', '***@example.com'],
    ['email', 'ödön@münchen.example', 'ö***@münchen.example'],
    ['email', '😀x@example.com', '😀***@example.com'],
    ['email', 'Ada <ada@example.com>', '***'],
    ['email', '"ada@home"@example.com', '***'],
    ['email', 'ada@', '***'],
    ['email', 'ada', '***'],
    ['email', 'ada@example.com\nsecret', '***'],
    ['email', '{ada@example.com}', '***'],
    ['last4', '4111 1111 1111 1234', '***1234'],
    ['last4', '+1 (555) 010-9999', '***9999'],
    ['last4', 'abcd1234', '***1234'],
    ['last4', '1234567', '***'],
    ['year', '1815-12-10', '1815'],
    ['year', '0044-03-15 BC', '0044 BC'],
    ['year', '2026-11-24 02:20:00.123456+00', '2026'],
    ['year', '2026-11-24T02:20:00Z', '2026'],
    ['year', '12026-11-24 02:20:00', '12026'],
    ['year', 'infinity', '***'],
    ['year', '10.12.1815', '***'],
    ['network', '198.51.100.7', '198.51.100.0/24'],
    ['network', '198.51.100.7/32', '198.51.100.0/24'],
    ['network', '10.1.2.3/8', '10.0.0.0/8'],
    ['network', '10.1.0.0/16', '10.1.0.0/16'],
    ['network', '0.0.0.0/0', '0.0.0.0/0'],
    ['network', '2001:db8:1:2::3', '2001:db8:1::/48'],
    ['network', '2001:db8:1:2::3/64', '2001:db8:1::/48'],
    ['network', '2001:db8:ffff::/33', '2001:db8:8000::/33'],
    ['network', '::ffff:198.51.100.7', '::/48'],
    ['network', '::1', '::/48'],
    ['network', 'fe80::1%eth0', '***'],
    ['network', '198.51.100.7/x', '***'],
    ['network', '198.51.100.7/24/7', '***'],
    ['network', 'host.example.com', '***'],
    ['email', '*@example.com', '***'],
    ['email', '**@example.com', '***'],
  ])('%s of %j is %j', (form, text, expected) => {
    expect(mask(form, text)).toBe(expected);
  });

  it('a text of no known form never passes, whatever the mask', () =>
    replayable((prng) => {
      for (let i = 0; i < cases(2000, 50_000); i++) {
        const text = prng.bytes(prng.integer(5, 40)).toString('latin1');
        for (const form of forms) {
          const shown = mask(form, text);
          expect(shown).not.toContain(text);
          if (form !== 'last4') expect(shown === fixedMask || shown.length < text.length + 6).toBe(true);
        }
      }
    }));
});

describe('hashes', () => {
  const protector = new ColumnProtector(hashKey);

  it('are HMAC-SHA-256 under a key of the tenant, as docs/records.md says', () => {
    const tenantKey = createHmac('sha256', hashKey).update('tenant\0acme').digest();
    const commonKey = createHmac('sha256', hashKey).update('no tenant').digest();
    expect(protector.protect('hash', 'ada', 'acme')).toBe(
      createHmac('sha256', tenantKey).update('ada').digest('hex'),
    );
    expect(protector.protect('hash', 'ada', null)).toBe(
      createHmac('sha256', commonKey).update('ada').digest('hex'),
    );
  });

  it('are what createHmac gives, of any text and key', () =>
    replayable((prng) => {
      for (let i = 0; i < cases(500, 10_000); i++) {
        const key = prng.bytes(prng.pick([1, 31, 32, 33, 64]));
        const text = prng.bytes(prng.integer(0, 300)).toString(prng.pick(['latin1', 'utf8', 'hex'] as const));
        const keyed = new KeyedHash(key);
        expect(keyed.hex(text)).toBe(createHmac('sha256', key).update(text).digest('hex'));
        expect(keyed.hex('')).toBe(createHmac('sha256', key).update('').digest('hex'));
      }
    }));

  it('of two tenants, or under two keys, do not join; of one they do', () => {
    const hashes = [
      protector.protect('hash', 'ada', 'acme'),
      protector.protect('hash', 'ada', 'umbrella'),
      protector.protect('hash', 'ada', null),
      new ColumnProtector(`${hashKey}.`).protect('hash', 'ada', 'acme'),
    ];
    expect(new Set(hashes).size).toBe(4);
    expect(new ColumnProtector(hashKey).protect('hash', 'ada', 'acme')).toBe(hashes[0]);
  });

  it('name their key in the schema, and a rotated key or another policy is another shape', () => {
    const schemaWith = (key: string, policy: 'hash' | 'mask:email') =>
      valueSchema(shapeOf([column('id', { key: true }), column('mail', { policy, key })]), 't');
    const first = schemaWith(hashKey, 'hash');
    expect(shapeOfSchema(first).columns[1]).toMatchObject({
      type: 'text',
      protection: { policy: 'hash', of: 'text', key: hashKeyId(hashKey) },
    });
    expect(sameSchema(first, schemaWith(hashKey, 'hash'))).toBe(true);
    expect(sameSchema(first, schemaWith(`${hashKey}.`, 'hash'))).toBe(false);
    expect(sameSchema(first, schemaWith(hashKey, 'mask:email'))).toBe(false);
    expect(first).not.toContain(hashKey);
  });
});

/** Columns of the test table; all text. */
function column(
  name: string,
  options: { key?: boolean | string; policy?: (typeof columnPolicies)[number] } = {},
): ColumnShape {
  const isKey = options.key === true;
  const { policy } = options;
  const usedKey = typeof options.key === 'string' ? options.key : hashKey;
  return {
    name,
    type: 'text',
    key: isKey,
    nullable: !isKey,
    ...(policy && isProtecting(policy) ? { protection: protectionOf(policy, 'text', usedKey) } : {}),
  };
}

function shapeOf(columns: ColumnShape[], tenant: string | null = null): TableShape {
  return {
    schema: 'app',
    name: 'people',
    columns,
    keyColumns: columns.flatMap(({ key }, i) => (key ? [i] : [])),
    tenantColumn: tenant === null ? null : columns.findIndex(({ name }) => name === tenant),
  };
}

const columns = [
  column('org', { key: true }),
  column('id', { key: true, policy: 'hash' }),
  column('mail', { policy: 'mask:email' }),
  column('ssn', { policy: 'hash' }),
  column('note'),
];
const shape = shapeOf(columns, 'org');
const relation: Relation = {
  oid: 7,
  schema: 'app',
  name: 'people',
  replicaIdentity: 'default',
  // One more than the shape has: the reader drops it.
  columns: [...columns.map(({ name }) => name), 'gone'].map((name, i) => ({
    name,
    typeOid: 25,
    typmod: -1,
    identity: i < 2,
  })),
};
const policies = ['keep', 'hash', 'mask:email', 'hash', 'keep', 'drop'] as const;
const described: (ParkedColumn & { name: string })[] = relation.columns.map(({ name }, i) => ({
  name,
  type: 'text',
  policy: policies[i]!,
  text: (bytes, start, end) => bytes.toString('utf8', start, end),
}));
const source = { tables: [], tenantColumn: 'org', hashKey } as unknown as SourceConfig;

const transaction = { commitLsn: 1n, commitTimeUs: 1n, xid: 1, previousCommitLsn: 0n, serial: 1 };
const schema = valueSchema(shape, 'p.app.people');

function encoderOf(): TableEncoder {
  const sourceColumns = columns.map(({ protection: _, ...own }) => own);
  return new TableEncoder({
    shape,
    topic: 'p.app.people',
    tupleIndex: [0, 1, 2, 3, 4],
    keySchemaId: 1,
    valueSchemaId: 2,
    identity: { serverName: 'p', database: 'd', version: '1' },
    protection: { sourceColumns, protector: new ColumnProtector(hashKey) },
  });
}

/** What consumers read of a message, and the bytes they read it from. */
function encoded(message: Buffer) {
  const encoder = encoderOf();
  const out = new ByteWriter();
  const records: { key: (string | null)[]; before: unknown; after: unknown; bytes: Buffer }[] = [];
  const record = (op: 'c' | 'u' | 'd', ...[before, after, fallback, fill]: Parameters<typeof images>) => {
    const key = encoder.encodeKey((after ?? before)!, fallback, out);
    const value = encoder.encodeEnvelope(op, before, after, fill, transaction, 0, out);
    const decoded = compileEnvelopeDecoder(schema).decode(value);
    const unchanged = encoder.remarks.unchanged.length > 0 ? JSON.stringify(encoder.remarks.unchanged) : null;
    expect(encoder.remarks.exact).toBeNull();
    records.push({
      key: compileKeyDecoder(schema)(key),
      before: decoded.before,
      after: decoded.after && applyHeaders(decoded.after, shape, unchanged, null),
      bytes: Buffer.concat([key, value]),
    });
  };
  const ignored = () => {};
  const handler: PgoutputHandler = {
    begin: ignored,
    commit: ignored,
    relation: ignored,
    truncate: ignored,
    message: ignored,
    insert: (_oid, after) => record('c', null, after, null, null),
    update(_oid, before, full, after) {
      if (before && !full) encoder.requireHashable(before, after);
      record('u', full ? before : null, after, before, full ? before : null);
    },
    delete: (_oid, before) => record('d', before, null, null, null),
  };
  decodeMessage(message, handler);
  return records[0]!;
}

type Image = Parameters<TableEncoder['encodeEnvelope']>[1];
declare function images(before: Image, after: Image, fallback: Image, fill: Image): void;

const text = (value: string) => Buffer.from(value);
const row: WireTuple = [
  text('acme'),
  text('secret-id'),
  text('secret@example.com'),
  text('secret-ssn'),
  text('a note'),
  text('secret-gone'),
];
const hash = (value: string, tenant = 'acme') => new ColumnProtector(hashKey).protect('hash', value, tenant);
const published = ['acme', hash('secret-id'), 's***@example.com', hash('secret-ssn'), 'a note'];

describe('the stream', () => {
  it('carries hashes and masks in key and value, NULL as NULL', () => {
    const insert = encoded(write.insert(7, row));
    expect(insert.key).toEqual(['acme', hash('secret-id')]);
    expect(insert.after).toEqual(published);
    expect(insert.bytes.includes('secret')).toBe(false);
    const empty = encoded(write.insert(7, [text('acme'), text('secret-id'), null, null, null, null]));
    expect(empty.after).toEqual(['acme', hash('secret-id'), null, null, null]);
  });

  it('carries them in old rows and deletes too, each with its own tenant', () => {
    const moved = row.with(0, text('umbrella'));
    const update = encoded(write.update(7, { kind: 'O', values: row }, moved));
    expect(update.before).toEqual(published);
    expect(update.after).toEqual([
      'umbrella',
      hash('secret-id', 'umbrella'),
      's***@example.com',
      hash('secret-ssn', 'umbrella'),
      'a note',
    ]);
    const gone = encoded(write.delete(7, 'K', [text('acme'), text('secret-id'), null, null, null, null]));
    expect(gone.key).toEqual(['acme', hash('secret-id')]);
    for (const { bytes } of [update, gone]) expect(bytes.includes('secret')).toBe(false);
  });

  it('says of untouched TOAST that it is untouched, or fills it from a whole old row', () => {
    const after = row.with(3, 'unchanged');
    expect(encoded(write.update(7, null, after)).after).toEqual(published.with(3, undefined as never));
    expect(encoded(write.update(7, { kind: 'O', values: row }, after)).after).toEqual(published);
    const moved = after.with(0, text('umbrella'));
    const key: WireTuple = [text('acme'), text('secret-id'), null, null, null, null];
    expect(() => encoded(write.update(7, { kind: 'K', values: key }, moved))).toThrow(/cannot be known/);
  });

  it('never carries a protected value that comes as text', () => {
    for (const at of [1, 2, 3]) {
      const message = write.insert(7, row.with(at, { text: 'secret-as-text' }));
      let bytes: Buffer = Buffer.alloc(0);
      try {
        bytes = encoded(message).bytes;
      } catch (error) {
        expect(error).toMatchObject({ code: 'TM208' });
        expect((error as Error).message).not.toContain('secret-as-text');
      }
      expect(bytes.includes('secret-as-text')).toBe(false);
    }
  });
});

describe('a parked message', () => {
  const parking = new ParkedMessages(source, relation, described);
  const key: WireTuple = [text('acme'), text('secret-id'), null, null, null, null];
  const messages = {
    insert: write.insert(7, row),
    'key update': write.update(7, { kind: 'K', values: key }, row.with(3, 'unchanged')),
    'full update': write.update(7, { kind: 'O', values: row }, row.with(0, text('umbrella'))),
    'key delete': write.delete(7, 'K', key),
    'full delete': write.delete(7, 'O', row),
  };

  it.each(Object.entries(messages))('without what is withheld: %s', (_name, message) => {
    const parked = parking.withhold(message);
    expect(message.includes('secret')).toBe(true);
    expect(parked.includes('secret')).toBe(false);
    if (message.includes('a note')) expect(parked.includes('a note')).toBe(true);
  });

  it.each(Object.entries(messages))('gives the same record as the message itself: %s', (_name, message) => {
    expect(encoded(parking.withhold(message))).toEqual(encoded(message));
  });

  it('a shape note goes without the values of existing rows, and says where one is', () => {
    const column = { name: 'email', number: 2, type: 25, typmod: -1, computed: false };
    const columns = [
      { ...column, missing: 'secret default' },
      { ...column, number: 3, missing: null },
    ];
    const content = Buffer.from(JSON.stringify({ format: 1, oid: 7, made: false, columns }));
    const parked = parkedNote(write.message(true, 1n, 'tidemark.shape', content), content);
    expect(parked.includes('secret')).toBe(false);
    let read: ShapeNote | null = null;
    decodeMessage(parked, {
      message: (_: boolean, __: string, note: Buffer) => {
        read = parseShapeNote(note);
      },
    } as unknown as PgoutputHandler);
    expect(read).toMatchObject({
      oid: 7,
      columns: [{ name: 'email', missing: null, withheld: true }, { missing: null }],
    });
    expect(laterNote(read!, read!).columns[0]).toMatchObject({ withheld: true });
  });

  it('is the same byte for byte where nothing is withheld', () => {
    const kept = described.map((each) => ({ ...each, policy: 'keep' as const }));
    for (const message of Object.values(messages)) {
      expect(new ParkedMessages(source, relation, kept).withhold(message)).toEqual(message);
    }
    for (const message of [write.truncate([7]), write.relation(relation)]) {
      expect(parking.withhold(message)).toEqual(message);
    }
  });

  it('is refused by an encoder under another policy or key', () => {
    const other = new ParkedMessages({ ...source, hashKey: `${hashKey}.` }, relation, described);
    expect(() => encoded(other.withhold(messages.insert))).toThrow(/was withheld/);
    const dropped = described.map((each) =>
      each.name === 'note' ? { ...each, policy: 'drop' as const } : each,
    );
    const parked = new ParkedMessages(source, relation, dropped).withhold(messages.insert);
    expect(parked.includes('a note')).toBe(false);
    expect(() => encoded(parked)).toThrow(/note was withheld .* now is keep/);
  });

  it('lets nothing out of a value whose text, or whose salt, it does not know', () => {
    const unknown = (name: string) =>
      described.map((each) => (each.name === name ? { ...each, type: 'app.odd', text: null } : each));
    for (const name of ['ssn', 'org']) {
      const parked = new ParkedMessages(source, relation, unknown(name)).withhold(messages.insert);
      expect(parked.includes('secret')).toBe(false);
      expect(parked.includes(hash('secret-ssn'))).toBe(false);
    }
  });
});

describe('verify', () => {
  const rows = () =>
    (async function* () {
      yield [['acme', 'secret-id', 'secret@example.com', 'secret-ssn', 'a note']];
      yield [['acme', 'secret-id', null, null, null]];
    })();

  it('compares with what the stream makes of the same rows', async () => {
    const seen = [];
    for await (const batch of protectedRows(rows(), shape, hashKey)) seen.push(...batch);
    expect(seen).toEqual([published, ['acme', hash('secret-id'), null, null, null]]);
  });

  it('says that the key is another one instead of finding every row different', async () => {
    for (const key of [null, `${hashKey}.`]) {
      const all = protectedRows(rows(), shape, key);
      await expect(all.next()).rejects.toMatchObject({ code: 'TM240' });
    }
  });
});
