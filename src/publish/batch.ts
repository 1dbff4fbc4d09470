/**
 * What one Kafka transaction will hold: records by partition, and how far they reach.
 *
 * A commit and a Change happen far more often than a batch is cut or a Change is taken back. So neither visits the runs:
 * each has a serial number, and a run notes how long it was when it is first written to under another one.
 */
import type { Position } from '../connector/position.ts';
import { type HeaderValue, RecordRun } from './record-run.ts';

/** How far the whole Transactions in a batch reach. */
export interface Boundary {
  position: Position;
  /** End LSN of the last whole Transaction. */
  ackLsn: bigint;
  /** Running maximum, microseconds since 1970 UTC. */
  commitTimeUs: bigint;
}

/** A run this long is closed: longer record batches are not faster, and wait longer for each other. */
const runBytes = 256 << 10;

export class Batch {
  /** In the order in which they were begun: of a partition's runs the first has its first records. */
  runs: RecordRun[] = [];
  records = 0;
  changes = 0;
  /** Encoded bytes, headers included. */
  bytes = 0;
  boundary: Boundary | null = null;
  /** Rows of a snapshot's chunk are among the records. */
  hasChunk = false;
  /** Records up to the boundary. */
  boundaryRecords = 0;
  /** Wall clock when the batch was opened, milliseconds. */
  readonly openedAtMs: number;
  /** What was there at the savepoint. */
  readonly saved = { records: 0, changes: 0, bytes: 0 };
  #boundaryBytes = 0;
  readonly #open = new Map<string, (RecordRun | undefined)[]>();
  #boundarySerial = 0;
  #changeSerial = 0;
  readonly #changed: RecordRun[] = [];
  #changedRuns = 0;

  constructor(nowMs: number) {
    this.openedAtMs = nowMs;
  }

  /** Where the partition's next record goes. Tell `wrote` of it. */
  run(topic: string, partition: number): RecordRun {
    const open = this.#openOf(topic);
    let run = open[partition];
    if (!run || run.bytes >= runBytes) {
      run = new RecordRun(topic, partition);
      open[partition] = run;
      this.runs.push(run);
    }
    const { boundary, change, out, count } = run;
    if (boundary.serial !== this.#boundarySerial) {
      boundary.serial = this.#boundarySerial;
      boundary.position = out.position;
      boundary.count = count;
    }
    if (change.serial !== this.#changeSerial) {
      change.serial = this.#changeSerial;
      change.position = out.position;
      change.count = count;
      this.#changed[this.#changedRuns++] = run;
    }
    return run;
  }

  #openOf(topic: string): (RecordRun | undefined)[] {
    let open = this.#open.get(topic);
    if (!open) {
      open = [];
      this.#open.set(topic, open);
    }
    return open;
  }

  wrote(bytes: number): void {
    this.records++;
    this.bytes += bytes;
  }

  /** A whole record. */
  add(
    topic: string,
    partition: number,
    key: Buffer | null,
    value: Buffer | null,
    headers: readonly (readonly [name: string, value: HeaderValue])[],
  ): void {
    this.wrote(this.run(topic, partition).add(key, value, headers));
  }

  markBoundary(position: Position, ackLsn: bigint, commitTimeUs: bigint): void {
    this.boundary = { position, ackLsn, commitTimeUs };
    if (this.boundaryRecords === this.records) return;
    this.boundaryRecords = this.records;
    this.#boundaryBytes = this.bytes;
    this.#boundarySerial++;
  }

  /** @returns this batch cut at its boundary, and a batch with the part of a Transaction that came after it */
  splitAtBoundary(nowMs: number): [Batch, Batch] {
    const rest = new Batch(nowMs);
    if (this.boundaryRecords === this.records) return [this, rest];
    const whole: RecordRun[] = [];
    for (const run of this.runs) {
      const { serial, position, count } = run.boundary;
      if (serial !== this.#boundarySerial || count > 0) whole.push(run);
      if (serial === this.#boundarySerial && count < run.count)
        rest.#take(count > 0 ? run.cut({ position, count }) : run);
    }
    this.runs = whole;
    rest.records = this.records - this.boundaryRecords;
    rest.bytes = this.bytes - this.#boundaryBytes;
    this.records = this.boundaryRecords;
    this.bytes = this.#boundaryBytes;
    return [this, rest];
  }

  /** Once its records are in Kafka. */
  release(): void {
    for (const run of this.runs) run.release();
    this.runs = [];
  }

  #take(run: RecordRun): void {
    run.boundary.serial = -1;
    run.change.serial = -1;
    this.#openOf(run.topic)[run.partition] = run;
    this.runs.push(run);
  }

  /** Until the next one, what is written can be taken back. */
  savepoint(): void {
    this.#changeSerial++;
    this.#changedRuns = 0;
    const { saved } = this;
    saved.records = this.records;
    saved.bytes = this.bytes;
    saved.changes = this.changes;
  }

  /** To the savepoint. */
  rollback(): void {
    for (let i = 0; i < this.#changedRuns; i++) this.#changed[i]!.truncate(this.#changed[i]!.change);
    const { records, bytes, changes } = this.saved;
    this.records = records;
    this.bytes = bytes;
    this.changes = changes;
  }
}
