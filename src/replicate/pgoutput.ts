/**
 * pgoutput messages, protocol version 1, as in "Logical Replication Message Formats" of the Postgres manual.
 * Row values are not decoded here: a Tuple only says where in the message each value lies.
 */
import { TidemarkError } from '../platform/errors.ts';

export interface RelationColumn {
  name: string;
  typeOid: number;
  typmod: number;
  /** Part of the replica identity (all columns where it is FULL). */
  identity: boolean;
}

export interface Relation {
  oid: number;
  schema: string;
  name: string;
  replicaIdentity: 'default' | 'nothing' | 'full' | 'index';
  columns: RelationColumn[];
}

/**
 * Kinds of a tuple's values, as bytes on the wire. `withheld` is ours: pgoutput never sends it, parked messages carry
 * it in place of what does not leave Postgres (publish/parked-messages.ts).
 */
export const valueKind = { null: 0x6e, unchanged: 0x75, text: 0x74, binary: 0x62, withheld: 0x70 } as const;

/** A row inside a message. The object is reused: it is valid until the next message is decoded. */
export class Tuple {
  bytes: Buffer = Buffer.alloc(0);
  count = 0;
  kinds = new Uint8Array(64);
  starts = new Int32Array(64);
  ends = new Int32Array(64);

  /** Of its values, in bytes, with what stands between them. */
  get size(): number {
    return this.count === 0 ? 0 : this.ends[this.count - 1]! - this.starts[0]!;
  }

  /** @returns the offset after the tuple */
  read(bytes: Buffer, at: number): number {
    if (at + 2 > bytes.length) throw truncated();
    this.bytes = bytes;
    const count = bytes.readUInt16BE(at);
    at += 2;
    if (count > this.kinds.length) {
      this.kinds = new Uint8Array(count * 2);
      this.starts = new Int32Array(count * 2);
      this.ends = new Int32Array(count * 2);
    }
    this.count = count;
    const { kinds, starts, ends } = this;
    for (let i = 0; i < count; i++) {
      const kind = bytes[at++];
      if (kind === valueKind.null || kind === valueKind.unchanged) {
        kinds[i] = kind;
        starts[i] = at;
        ends[i] = at;
        continue;
      }
      if (kind !== valueKind.binary && kind !== valueKind.text && kind !== valueKind.withheld)
        throw unknown('value', kind);
      if (at + 4 > bytes.length) throw truncated();
      const length = (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
      at += 4;
      kinds[i] = kind;
      starts[i] = at;
      if (length < 0 || length > bytes.length - at) throw truncated();
      at += length;
      ends[i] = at;
    }
    return at;
  }
}

export interface TransactionStart {
  /** First byte of the commit record. */
  commitLsn: bigint;
  /** Microseconds since 1970 UTC. */
  commitTimeUs: bigint;
  xid: number;
}

/** Receives a decoded stream. Tuples and `raw` are valid only during the call. */
export interface PgoutputHandler {
  begin(start: TransactionStart): void;
  /** @param endLsn first byte after the commit record */
  commit(commitLsn: bigint, endLsn: bigint): void;
  relation(relation: Relation, raw: Buffer): void;
  insert(oid: number, after: Tuple, raw: Buffer): void;
  /** `before` holds the whole old row when `beforeIsFull`, only the identity columns otherwise. */
  update(oid: number, before: Tuple | null, beforeIsFull: boolean, after: Tuple, raw: Buffer): void;
  delete(oid: number, before: Tuple, beforeIsFull: boolean, raw: Buffer): void;
  truncate(oids: number[], raw: Buffer): void;
  message(transactional: boolean, prefix: string, content: Buffer): void;
}

/** Microseconds from 1970 to Postgres' epoch. */
const epochMicros = 946684800000000n;

const before = new Tuple();
const after = new Tuple();

const none: readonly number[] = [];
const single: number[] = [0];

/** Relations whose rows a message changes. The list is reused by the next call. @throws TidemarkError TM206 */
export function changedRelations(bytes: Buffer): readonly number[] {
  const type = bytes[0];
  if (type === 0x49 || type === 0x55 || type === 0x44) {
    expectLength(bytes, 5);
    single[0] = bytes.readUInt32BE(1);
    return single;
  }
  return type === 0x54 ? truncatedRelations(bytes) : none;
}

/** @throws TidemarkError TM206 for anything this version does not know: it is never guessed */
export function decodeMessage(bytes: Buffer, handler: PgoutputHandler): void {
  const type = bytes[0];
  switch (type) {
    case 0x49: {
      // I: insert
      expectLength(bytes, 6);
      const oid = bytes.readUInt32BE(1);
      expectKind(bytes[5], 0x4e, 'insert');
      expectEnd(bytes, after.read(bytes, 6));
      handler.insert(oid, after, bytes);
      return;
    }
    case 0x55: {
      // U: update
      expectLength(bytes, 6);
      const oid = bytes.readUInt32BE(1);
      const kind = bytes[5];
      let at = 5;
      let hasBefore = false;
      if (kind === 0x4b || kind === 0x4f) {
        at = before.read(bytes, 6);
        hasBefore = true;
      }
      expectKind(bytes[at], 0x4e, 'update');
      expectEnd(bytes, after.read(bytes, at + 1));
      handler.update(oid, hasBefore ? before : null, kind === 0x4f, after, bytes);
      return;
    }
    case 0x44: {
      // D: delete
      expectLength(bytes, 6);
      const kind = bytes[5];
      if (kind !== 0x4b && kind !== 0x4f) throw unknown('delete', kind);
      expectEnd(bytes, before.read(bytes, 6));
      handler.delete(bytes.readUInt32BE(1), before, kind === 0x4f, bytes);
      return;
    }
    case 0x42: // B: begin (commit LSN, time, xid)
      expectLength(bytes, 21);
      expectEnd(bytes, 21);
      handler.begin({
        commitLsn: bytes.readBigUInt64BE(1),
        commitTimeUs: bytes.readBigInt64BE(9) + epochMicros,
        xid: bytes.readUInt32BE(17),
      });
      return;
    case 0x43: // C: commit (flags, commit LSN, end LSN, time)
      expectLength(bytes, 26);
      expectEnd(bytes, 26);
      handler.commit(bytes.readBigUInt64BE(2), bytes.readBigUInt64BE(10));
      return;
    case 0x52: // R: relation
      handler.relation(decodeRelation(bytes), bytes);
      return;
    case 0x54: // T: truncate
      handler.truncate(truncatedRelations(bytes), bytes);
      return;
    case 0x4d: {
      // M: logical message (flags, LSN, prefix, length, content)
      expectLength(bytes, 10);
      const end = endOfText(bytes, 10);
      expectLength(bytes, end + 5);
      const length = bytes.readUInt32BE(end + 1);
      expectLength(bytes, end + 5 + length);
      expectEnd(bytes, end + 5 + length);
      handler.message((bytes[1]! & 1) === 1, bytes.toString('utf8', 10, end), bytes.subarray(end + 5));
      return;
    }
    case 0x59: // Y: type; the relation's column types are looked up in the catalogue
    case 0x4f: // O: origin
      return;
    default:
      throw unknown('message', type);
  }
}

/** T: count, options, relations */
function truncatedRelations(bytes: Buffer): number[] {
  expectLength(bytes, 6);
  const count = bytes.readUInt32BE(1);
  expectLength(bytes, 6 + count * 4);
  expectEnd(bytes, 6 + count * 4);
  return Array.from({ length: count }, (_, i) => bytes.readUInt32BE(6 + i * 4));
}

function decodeRelation(bytes: Buffer): Relation {
  expectLength(bytes, 5);
  const oid = bytes.readUInt32BE(1);
  const schemaEnd = endOfText(bytes, 5);
  const nameEnd = endOfText(bytes, schemaEnd + 1);
  expectLength(bytes, nameEnd + 4);
  const identity = bytes[nameEnd + 1]!;
  const count = bytes.readUInt16BE(nameEnd + 2);
  const columns: RelationColumn[] = [];
  let at = nameEnd + 4;
  for (let i = 0; i < count; i++) {
    const end = endOfText(bytes, at + 1);
    expectLength(bytes, end + 9);
    columns.push({
      identity: (bytes[at]! & 1) === 1,
      name: bytes.toString('utf8', at + 1, end),
      typeOid: bytes.readUInt32BE(end + 1),
      typmod: bytes.readInt32BE(end + 5),
    });
    at = end + 9;
  }
  expectEnd(bytes, at);
  const replicaIdentity = ({ 100: 'default', 110: 'nothing', 102: 'full', 105: 'index' } as const)[
    identity as 100
  ];
  if (!replicaIdentity) throw unknown('replica identity', identity);
  return {
    oid,
    // An empty namespace stands for pg_catalog.
    schema: bytes.toString('utf8', 5, schemaEnd) || 'pg_catalog',
    name: bytes.toString('utf8', schemaEnd + 1, nameEnd),
    replicaIdentity,
    columns,
  };
}

/** @returns where the text's zero byte is */
function endOfText(bytes: Buffer, at: number): number {
  const end = bytes.indexOf(0, at);
  if (end < 0) throw truncated();
  return end;
}

function expectLength(bytes: Buffer, length: number): void {
  if (bytes.length < length) throw truncated();
}

/** More bytes than the message has fields: a protocol that this version does not know. */
function expectEnd(bytes: Buffer, at: number): void {
  if (at !== bytes.length)
    throw new TidemarkError('TM206', `pgoutput sent a message with ${bytes.length - at} bytes too many`);
}

function truncated(): TidemarkError {
  return new TidemarkError('TM206', 'pgoutput sent a message that is shorter than its fields say');
}

function expectKind(kind: number | undefined, wanted: number, message: string): void {
  if (kind !== wanted) throw unknown(message, kind);
}

function unknown(what: string, code: number | undefined): TidemarkError {
  return new TidemarkError(
    'TM206',
    `pgoutput sent a ${what} of a kind this version does not know (${code ?? 'nothing'})`,
  );
}
