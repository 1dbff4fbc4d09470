/** pgoutput: recorded streams decode to what was done, anything else is TM206 (invariant 1: it is never guessed). */
import { readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { describe, expect, it, vi } from 'vitest';
import { TidemarkError } from '../../src/platform/errors.ts';
import { codecFor } from '../../src/publish/types/catalogue.ts';
import {
  changedRelations,
  decodeMessage,
  type PgoutputHandler,
  type Relation,
  type Tuple,
  valueKind,
} from '../../src/replicate/pgoutput.ts';
import type { Prng } from '../../src/sample/prng.ts';
import { cases, replayable } from '../fixtures/pgoutput/replay.ts';
import { type WireTuple, type WireValue, write } from '../fixtures/pgoutput/writer.ts';

const typeNames: Record<number, string> = {
  20: 'bigint',
  23: 'integer',
  25: 'text',
  1700: 'numeric',
  1009: 'text[]',
};

/** One line per call, values as text: … is an unchanged TOAST value. */
class Transcript implements PgoutputHandler {
  readonly lines: string[] = [];
  readonly #relations = new Map<number, Relation>();
  #commitLsn = 0n;
  #endLsn = 0n;

  begin({ commitLsn, commitTimeUs, xid }: Parameters<PgoutputHandler['begin']>[0]) {
    expect(commitLsn).toBeGreaterThanOrEqual(this.#endLsn);
    expect(new Date(Number(commitTimeUs / 1000n)).getUTCFullYear()).toBeGreaterThan(2020);
    expect(xid).toBeGreaterThan(0);
    this.#commitLsn = commitLsn;
    this.lines.push('begin');
  }
  commit(commitLsn: bigint, endLsn: bigint) {
    expect(commitLsn).toBe(this.#commitLsn);
    expect(endLsn).toBeGreaterThan(commitLsn);
    this.#endLsn = endLsn;
    this.lines.push('commit');
  }
  relation(relation: Relation, raw: Buffer) {
    expect(write.relation(relation)).toEqual(raw);
    this.#relations.set(relation.oid, relation);
    const columns = relation.columns.map(({ name, identity }) => (identity ? `${name}*` : name));
    this.lines.push(`relation ${relation.schema}.${relation.name} ${relation.replicaIdentity} (${columns})`);
  }
  insert(oid: number, after: Tuple) {
    this.lines.push(`insert ${this.#row(oid, after)}`);
  }
  update(oid: number, before: Tuple | null, beforeIsFull: boolean, after: Tuple) {
    const old = before ? ` ${beforeIsFull ? 'full' : 'key'} ${this.#row(oid, before)} to` : '';
    this.lines.push(`update${old} ${this.#row(oid, after)}`);
  }
  delete(oid: number, before: Tuple, beforeIsFull: boolean) {
    this.lines.push(`delete ${beforeIsFull ? 'full' : 'key'} ${this.#row(oid, before)}`);
  }
  truncate(oids: number[]) {
    this.lines.push(`truncate ${oids.map((oid) => this.#relations.get(oid)?.name)}`);
  }
  message(transactional: boolean, prefix: string, content: Buffer) {
    this.lines.push(`message ${transactional} ${prefix} ${content}`);
  }

  #row(oid: number, { bytes, count, kinds, starts, ends }: Tuple): string {
    const { name, columns } = this.#relations.get(oid)!;
    expect(count).toBe(columns.length);
    const cells = columns.map(({ typeOid }, i) => {
      if (kinds[i] === valueKind.null) return 'null';
      if (kinds[i] === valueKind.unchanged) return '…';
      expect(kinds[i]).toBe(valueKind.binary);
      const codec = codecFor({ type: typeNames[typeOid] ?? 'text' })!;
      const text = codec.text(bytes, starts[i]!, ends[i]!);
      return text.length > 100 ? `${text.length} characters` : text;
    });
    return `${name} ${cells.join('|')}`;
  }
}

function recorded(name: string): Buffer[] {
  const file = new URL(`../fixtures/pgoutput/${name}.json`, import.meta.url);
  const { messages } = JSON.parse(readFileSync(file, 'utf8')) as { messages: string[] };
  return messages.map((hex) => Buffer.from(hex, 'hex'));
}

const many = (n: number, values: Record<number, string>) =>
  Array.from({ length: n }, (_, i) => values[i] ?? 'null').join('|');

const recordings: Record<string, string[]> = {
  'identity-default': [
    'relation public.d default (id*,v,n)',
    'insert d 1|one|1.50',
    'insert d 2|null|null',
    'update d 2|zwei|null',
    'update key d 2|null|null to d 3|zwei|null',
    'delete key d 1|null|null',
  ],
  'identity-full': [
    'relation public.f full (a*,b*)',
    'insert f 1|x',
    'insert f null|null',
    'update full f 1|x to f 1|y',
    'delete full f null|null',
    'delete full f 1|y',
  ],
  'identity-index': [
    'relation public.i index (a,b*,c)',
    'insert i 1|x|c',
    'update i 1|x|d',
    'update key i null|x|null to i 1|z|d',
    'delete key i null|z|null',
  ],
  'identity-nothing': ['relation public.n default (a)', 'insert n 7'],
  truncate: [
    'relation public.x default (id*)',
    'insert x 1',
    // A truncate gives the table a new file, which makes the server describe it again.
    'relation public.x default (id*)',
    'relation public.y default (id*,x)',
    'relation public.z default (id*)',
    'truncate x,y,z',
    'relation public.x default (id*)',
    'relation public.y default (id*,x)',
    'truncate x,y',
    'relation public.z default (id*)',
    'truncate z',
  ],
  toast: [
    'relation public.big default (id*,small,big)',
    'insert big 1|s|2500 characters',
    'update big 1|t|…',
    'update key big 1|null|null to big 2|t|…',
    'relation public.big full (id*,small*,big*)',
    'update full big 2|t|2500 characters to big 2|u|…',
  ],
  'types-and-messages': [
    'relation Odd "name".tä ble default (ké y*,p,x)',
    'insert tä ble ok|\0\0\0\u0005|{a,NULL}',
    'message true tidemark inside',
    'insert tä ble sad|null|null',
    'message false tidemark outside',
    'message true  ',
  ],
  'wide-table': [
    `relation public.wide default (id*,${Array.from({ length: 99 }, (_, i) => `c${i + 1}`)})`,
    `insert wide ${many(100, { 0: '1', 1: '2', 63: '3', 64: '4', 65: '5', 99: '6' })}`,
    `update wide ${many(100, { 0: '1', 1: '2', 63: '3', 64: '4', 65: '5', 70: '7', 99: '6' })}`,
  ],
  'shape-changes': [
    'relation public.s default (id*,gone)',
    'insert s 1|g',
    'relation public.s default (id*,gone,more)',
    'insert s 2|h|5',
    'relation public.s default (id*,more)',
    'insert s 3|6',
    'relation public.renamed default (id*,more)',
    'insert renamed 4|5',
  ],
};

vi.setConfig({ testTimeout: 60_000 });

describe('recorded streams of Postgres 18', () => {
  it.each(Object.entries(recordings))('%s', (name, expected) => {
    const transcript = new Transcript();
    for (const message of recorded(name)) decodeMessage(message, transcript);
    const { lines } = transcript;
    expect(lines.filter((line) => line !== 'begin' && line !== 'commit')).toEqual(expected);
    expect(lines.filter((line) => line === 'begin')).toHaveLength(
      lines.filter((line) => line === 'commit').length,
    );
    // Only a non-transactional message stands outside a transaction.
    let open = false;
    for (const line of lines) {
      if (line === 'begin') expect(open).toBe(false);
      else expect(open || line.startsWith('message false')).toBe(true);
      open = line !== 'commit' && (open || line === 'begin');
    }
  });

  it('changedRelations names what a message changes, and nothing else', () => {
    for (const name of Object.keys(recordings)) {
      for (const message of recorded(name)) {
        const changed: number[] = [];
        const collect = (oid: number) => void changed.push(oid);
        decodeMessage(message, {
          ...ignoring,
          insert: collect,
          update: collect,
          delete: collect,
          truncate: (oids) => void changed.push(...oids),
        });
        expect([...changedRelations(message)]).toEqual(changed);
      }
    }
  });
});

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

function wireValue(prng: Prng): WireValue {
  switch (prng.integer(0, 4)) {
    case 0:
      return null;
    case 1:
      return 'unchanged';
    case 2:
      return { text: prng.uuid() };
    default:
      return prng.bytes(prng.integer(0, 40));
  }
}

const wireTuple = (prng: Prng): WireTuple =>
  Array.from({ length: prng.pick([0, 1, 5, 64, 65, prng.integer(0, 1600)]) }, () => wireValue(prng));

function readBack({ bytes, count, kinds, starts, ends }: Tuple): WireTuple {
  return Array.from({ length: count }, (_, i) => {
    if (kinds[i] === valueKind.null) return null;
    if (kinds[i] === valueKind.unchanged) return 'unchanged';
    const value = Buffer.from(bytes.subarray(starts[i], ends[i]));
    return kinds[i] === valueKind.text ? { text: value.toString() } : value;
  });
}

const anyOid = (prng: Prng) => prng.uint32();
const anyLsn = (prng: Prng) => prng.bytes(8).readBigUInt64BE();

function anyRelation(prng: Prng): Relation {
  const identifier = () => prng.pick(['a', 'tä ble', '__proto__', '"', "'", '🌊', ' ', prng.uuid()]);
  return {
    oid: anyOid(prng),
    schema: identifier(),
    name: identifier(),
    replicaIdentity: prng.pick(['default', 'nothing', 'full', 'index'] as const),
    columns: Array.from({ length: prng.integer(0, 70) }, () => ({
      name: identifier(),
      typeOid: anyOid(prng),
      typmod: prng.pick([-1, prng.integer(-(2 ** 31), 2 ** 31 - 1)]),
      identity: prng.chance(0.5),
    })),
  };
}

describe('random messages come back as they were written', () => {
  it('tuples of every kind, in insert, update and delete', () =>
    replayable((prng) => {
      for (let i = 0; i < cases(300, 5000); i++) {
        const [oid, after, old] = [anyOid(prng), wireTuple(prng), wireTuple(prng)];
        const kind = prng.pick(['K', 'O'] as const);
        const calls: unknown[] = [];
        const handler: PgoutputHandler = {
          ...ignoring,
          insert: (...args) => void calls.push([args[0], readBack(args[1])]),
          update: (...args) =>
            void calls.push([args[0], args[1] && readBack(args[1]), args[2], readBack(args[3])]),
          delete: (...args) => void calls.push([args[0], readBack(args[1]), args[2]]),
        };
        decodeMessage(write.insert(oid, after), handler);
        decodeMessage(write.update(oid, null, after), handler);
        decodeMessage(write.update(oid, { kind, values: old }, after), handler);
        decodeMessage(write.delete(oid, kind, old), handler);
        const written = [
          [oid, after],
          [oid, null, false, after],
          [oid, old, kind === 'O', after],
          [oid, old, kind === 'O'],
        ];
        // Vitest's own comparison takes milliseconds for such arrays.
        if (!isDeepStrictEqual(calls, written)) expect(calls).toEqual(written);
      }
    }));

  it('begin, commit, relation, truncate, message', () =>
    replayable((prng) => {
      for (let i = 0; i < cases(300, 5000); i++) {
        const relation = anyRelation(prng);
        const start = {
          commitLsn: anyLsn(prng),
          commitTimeUs: BigInt(prng.uint32()) * 1000001n,
          xid: prng.uint32(),
        };
        const end = anyLsn(prng);
        const oids = Array.from({ length: prng.integer(0, 20) }, () => anyOid(prng));
        const content = prng.bytes(prng.integer(0, 50));
        const calls: unknown[] = [];
        const handler: PgoutputHandler = {
          ...ignoring,
          begin: (...args) => void calls.push(args),
          commit: (...args) => void calls.push(args),
          relation: (got) => void calls.push([got]),
          truncate: (got) => void calls.push([got]),
          message: (transactional, prefix, got) => void calls.push([transactional, prefix, Buffer.from(got)]),
        };
        decodeMessage(write.begin(start.commitLsn, start.commitTimeUs, start.xid), handler);
        decodeMessage(write.commit(start.commitLsn, end, start.commitTimeUs), handler);
        decodeMessage(write.relation(relation), handler);
        decodeMessage(write.truncate(oids, 3), handler);
        decodeMessage(write.message(true, end, 'prefix ü', content), handler);
        expect(calls).toEqual([
          [start],
          [start.commitLsn, end],
          [relation],
          [oids],
          [true, 'prefix ü', content],
        ]);
      }
    }));

  it('the empty namespace is pg_catalog', () => {
    let schema = '';
    const handler: PgoutputHandler = {
      ...ignoring,
      relation(relation) {
        schema = relation.schema;
      },
    };
    decodeMessage(
      write.relation({ oid: 1, schema: '', name: 't', replicaIdentity: 'default', columns: [] }),
      handler,
    );
    expect(schema).toBe('pg_catalog');
  });
});

/** Decodes; anything thrown must be TM206. */
function decodes(bytes: Buffer): boolean {
  let first: unknown = null;
  for (const run of [() => decodeMessage(bytes, ignoring), () => changedRelations(bytes)]) {
    try {
      run();
    } catch (error) {
      expect(error).toBeInstanceOf(TidemarkError);
      expect((error as TidemarkError).code).toBe('TM206');
      first ??= error;
    }
  }
  return first === null;
}

describe('what is not pgoutput is TM206, never a hang, never a RangeError', () => {
  const samples = Object.keys(recordings).flatMap(recorded);
  const skipped = (bytes: Buffer) => bytes[0] === 0x59 || bytes[0] === 0x4f; // type, origin: not read

  it('every recorded message cut at every length', () => {
    for (const message of samples) {
      if (skipped(message)) continue;
      for (let length = 0; length < Math.min(message.length, 600); length++)
        expect(decodes(message.subarray(0, length)), `${message.toString('latin1', 0, 1)} at ${length}`).toBe(
          false,
        );
    }
  });

  it('bytes behind the end', () => {
    for (const message of samples) {
      if (!skipped(message)) expect(decodes(Buffer.concat([message, Buffer.from([0])]))).toBe(false);
    }
  });

  it('unknown message types, value kinds, old-tuple kinds and replica identities', () => {
    for (let type = 0; type < 256; type++) {
      if ('IUDBCRTMYO'.includes(String.fromCharCode(type))) continue;
      expect(decodes(Buffer.concat([Buffer.from([type]), Buffer.alloc(40)]))).toBe(false);
    }
    const insert = write.insert(1, [Buffer.from('abc')]);
    for (const [at, byte] of [
      [5, 0x4f],
      [8, 0x78],
    ] as const) {
      const changed = Buffer.from(insert);
      changed[at] = byte;
      expect(decodes(changed)).toBe(false);
    }
    const relation = write.relation({ oid: 1, schema: 's', name: 't', replicaIdentity: 'full', columns: [] });
    relation[9] = 0x78;
    expect(decodes(relation)).toBe(false);
  });

  it('lengths that are negative, huge, or claim billions of relations', () => {
    const insert = write.insert(1, [Buffer.from('abc')]);
    for (const length of [-1, -5, 2 ** 31 - 1, 4, 2]) {
      const changed = Buffer.from(insert);
      changed.writeInt32BE(length, 9);
      expect(decodes(changed)).toBe(false);
    }
    const truncate = write.truncate([1, 2]);
    for (const count of [3, 2 ** 32 - 1, 0]) {
      truncate.writeUInt32BE(count, 1);
      expect(decodes(truncate)).toBe(false);
    }
    const message = write.message(true, 1n, 'p', Buffer.from('c'));
    message.writeUInt32BE(2 ** 32 - 1, 12);
    expect(decodes(message)).toBe(false);
  });

  it('random damage to real messages', () =>
    replayable((prng) => {
      for (let i = 0; i < cases(5000, 200_000); i++) {
        const message = Buffer.from(prng.pick(samples));
        for (let hits = prng.integer(1, 4); hits > 0; hits--)
          message[prng.integer(0, Math.min(message.length - 1, 80))] = prng.uint32();
        decodes(message);
        decodes(prng.bytes(prng.integer(0, 80)));
      }
    }));

  it("a handler's own error passes as it is", () => {
    const own = new RangeError('from the handler');
    const handler = {
      ...ignoring,
      insert: () => {
        throw own;
      },
    };
    expect(() => decodeMessage(write.insert(1, []), handler)).toThrow(own);
  });
});
