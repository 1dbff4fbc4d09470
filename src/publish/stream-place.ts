/** Where the stream is: the Transaction that is being read, and the Position of every Change in it. */
import {
  formatPosition,
  ordinalText,
  type Position,
  parsePosition,
  positionPrefix,
} from '../connector/position.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { TransactionStart } from '../replicate/pgoutput.ts';
import type { TransactionContext } from './envelope-frame.ts';
import type { Progress } from './progress.ts';
import { PlaceHeaders } from './record-writer.ts';

export class StreamPlace {
  /** First WAL byte that is not in a whole Transaction yet. */
  ackLsn: bigint;
  /** Running maximum, microseconds since 1970 UTC. */
  commitTimeUs: bigint;
  readonly epoch: number;
  changes = 0;
  transactions = 0;
  /** Of the Change that was read last in this Transaction. */
  ordinal = 0;
  readonly #resume: { lsn: bigint; ordinal: number };
  #transaction: TransactionContext | null = null;
  #prefix = '';
  readonly headers = new PlaceHeaders();
  /** Null: that of the Change that was read last, made only for who asks. */
  #position: Position | null;
  /** Changes of this Transaction up to this ordinal are in Kafka already. */
  #skipThrough = 0;
  #lastCommitLsn: bigint;
  #serial = 0;

  /** @param resume everything up to here is in Kafka already */
  constructor(resume: Progress) {
    const { epoch, lsn, ordinal } = parsePosition(resume.position);
    this.epoch = epoch;
    this.#position = resume.position;
    this.ackLsn = resume.ackLsn;
    this.commitTimeUs = resume.commitTimeUs;
    this.#resume = { lsn, ordinal };
    this.#lastCommitLsn = lsn;
  }

  /** Of the last Change, or the end of the last Transaction without any. */
  get position(): Position {
    this.#position ??= (this.#prefix + ordinalText(this.ordinal)) as Position;
    return this.#position;
  }

  set position(position: Position) {
    this.#position = position;
  }

  get inTransaction(): boolean {
    return this.#transaction !== null;
  }

  /** @throws TidemarkError TM206 outside a Transaction */
  get transaction(): TransactionContext {
    if (!this.#transaction) throw new TidemarkError('TM206', 'pgoutput sent a change outside a transaction');
    return this.#transaction;
  }

  begin({ commitLsn, commitTimeUs, xid }: TransactionStart): void {
    this.#transaction = {
      commitLsn,
      commitTimeUs,
      xid,
      previousCommitLsn: this.#lastCommitLsn,
      serial: ++this.#serial,
    };
    // Its Position was not asked for, and is of the Transaction before.
    this.#position = this.position;
    this.#prefix = positionPrefix(this.epoch, commitLsn);
    this.headers.begin(this.#prefix);
    this.ordinal = 0;
    const { lsn, ordinal } = this.#resume;
    this.#skipThrough = commitLsn < lsn ? Number.MAX_SAFE_INTEGER : commitLsn === lsn ? ordinal : 0;
  }

  commit(commitLsn: bigint, endLsn: bigint): void {
    const { commitTimeUs } = this.transaction;
    this.#transaction = null;
    this.#lastCommitLsn = commitLsn;
    if (commitTimeUs > this.commitTimeUs) this.commitTimeUs = commitTimeUs;
    if (endLsn > this.ackLsn) this.ackLsn = endLsn;
    const position = (this.#prefix + ordinalText(this.ordinal)) as Position;
    if (this.#position === null || position > this.#position) this.#position = position;
    this.transactions++;
  }

  /** Outside a Transaction: everything before `lsn` was received, and nothing of it was for us. */
  advance(lsn: bigint, timeUs: bigint): void {
    const position = formatPosition({ epoch: this.epoch, lsn, ordinal: 0 });
    if (position > this.position) this.position = position;
    if (lsn > this.ackLsn) this.ackLsn = lsn;
    if (timeUs > this.commitTimeUs) this.commitTimeUs = timeUs;
  }

  /** Of the Change that comes next in this Transaction. */
  get upcoming(): Position {
    return (this.#prefix + ordinalText(this.ordinal + 1)) as Position;
  }

  /** To the next Change. @returns false where Kafka has it already */
  next(): boolean {
    if (this.ordinal < this.#skipThrough) {
      this.#position = this.position;
      this.ordinal++;
      return false;
    }
    this.ordinal++;
    this.#position = null;
    this.changes++;
    return true;
  }
}
