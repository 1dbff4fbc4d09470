/** The part of Debezium's envelope around the rows: the registry header, the source block, op and times. */
import type { TableId } from '../connector/shape.ts';
import { ByteWriter } from './byte-writer.ts';

export interface TransactionContext {
  commitLsn: bigint;
  commitTimeUs: bigint;
  xid: number;
  /** Commit LSN of the Transaction before, for Debezium's `sequence`. */
  previousCommitLsn: bigint;
  /** Distinguishes transactions cheaply, to cache the source block. */
  serial: number;
}

export interface EncoderIdentity {
  /** Debezium's logical name: the topic prefix. */
  serverName: string;
  database: string;
  version: string;
}

const opBytes = { c: 0x63, u: 0x75, d: 0x64, t: 0x74, r: 0x72, e: 0x65 } as const;
export type EnvelopeOp = keyof typeof opBytes;

/** Of one table and schema; what a Transaction's or a batch's records share is encoded once. */
export class EnvelopeFrame {
  readonly #valueHead: Buffer;
  readonly #sourceHead: Buffer;
  readonly #sourceTable: Buffer;
  readonly #sourceName: Buffer;
  readonly #snapshotName: Buffer;
  /** Of the last Transaction; the next one's takes its place. */
  readonly #source = new ByteWriter(256);
  #sourceSerial = -1;
  #sourceOfRead = false;
  readonly #tail = new ByteWriter(256);
  #tailSerial = -1;
  #tailOp: EnvelopeOp | null = null;
  #tailMs = -1;
  #processedAt: Buffer = Buffer.alloc(0);
  #processedAtMs = -1;

  constructor(table: TableId, valueSchemaId: number, identity: EncoderIdentity) {
    this.#valueHead = registryHead(valueSchemaId);
    this.#sourceHead = constantBytes((out) => {
      out.text(identity.version);
      out.text('postgresql');
      out.text(identity.serverName);
    });
    const sourceName = (snapshot: string) =>
      constantBytes((out) => {
        out.byte(0); // snapshot: the union's string branch
        out.text(snapshot);
        out.text(identity.database);
      });
    this.#sourceName = sourceName('false');
    this.#snapshotName = sourceName('incremental');
    this.#sourceTable = constantBytes((out) => {
      out.text(table.schema);
      out.text(table.name);
    });
  }

  /** Before the rows. */
  begin(out: ByteWriter): void {
    out.raw(this.#valueHead);
  }

  /** After the rows. */
  end(op: EnvelopeOp, transaction: TransactionContext, nowMs: number, out: ByteWriter): void {
    if (this.#tailSerial !== transaction.serial || this.#tailOp !== op || this.#tailMs !== nowMs)
      this.#encodeTail(op, transaction, nowMs);
    out.raw(this.#tail.bytes, 0, this.#tail.position);
  }

  /** What the records of one Transaction, operation and batch share. */
  #encodeTail(op: EnvelopeOp, transaction: TransactionContext, nowMs: number): void {
    // A Transaction has changes or a chunk's rows, and nearly never both: one source block serves it.
    if (this.#sourceSerial !== transaction.serial || this.#sourceOfRead !== (op === 'r'))
      this.#encodeSource(transaction, op === 'r');
    if (nowMs !== this.#processedAtMs) this.#encodeProcessedAt(nowMs);
    const tail = this.#tail;
    tail.position = 0;
    tail.raw(this.#source.bytes, 0, this.#source.position);
    tail.byte(0); // transaction: null
    tail.byte(2); // op: one character
    tail.byte(opBytes[op]);
    tail.raw(this.#processedAt);
    this.#tailSerial = transaction.serial;
    this.#tailOp = op;
    this.#tailMs = nowMs;
  }

  /** The outer ts_ms, ts_us and ts_ns: one instant per batch. */
  #encodeProcessedAt(nowMs: number): void {
    this.#processedAt = constantBytes((out) => {
      out.byte(2);
      out.long(nowMs);
      out.byte(2);
      out.long(nowMs * 1000);
      out.byte(2);
      out.bigLong(BigInt(nowMs) * 1000000n);
    });
    this.#processedAtMs = nowMs;
  }

  #encodeSource(transaction: TransactionContext, snapshot: boolean): void {
    const { commitTimeUs, commitLsn, previousCommitLsn, xid } = transaction;
    const micros = Number(commitTimeUs);
    const out = this.#source;
    out.position = 0;
    out.raw(this.#sourceHead);
    out.long(Math.floor(micros / 1000));
    out.raw(snapshot ? this.#snapshotName : this.#sourceName);
    out.byte(2);
    out.ascii(`["${previousCommitLsn}","${commitLsn}"]`);
    out.byte(2);
    out.long(micros);
    out.byte(2);
    if (micros >= 0) out.thousandfold(micros);
    else out.bigLong(commitTimeUs * 1000n);
    out.raw(this.#sourceTable);
    out.byte(2);
    out.long(xid);
    out.byte(2);
    out.bigLong(commitLsn);
    out.byte(0); // xmin
    this.#sourceSerial = transaction.serial;
    this.#sourceOfRead = snapshot;
  }
}

/** The registry wire format's header. */
export function registryHead(schemaId: number): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(schemaId, 1);
  return head;
}

export function constantBytes(write: (out: ByteWriter) => void): Buffer {
  const out = new ByteWriter(512);
  write(out);
  return out.take();
}
