/**
 * The open slot. pg-logical-replication carries the protocol; acknowledgements are ours alone:
 *
 * The library's timer acknowledges whatever was received, even with `auto: false`, and its `acknowledge(lsn)` sends
 * lsn + 1. A commit's end LSN and a keepalive's LSN already mean "next byte needed", and Postgres skips every
 * transaction whose commit record starts below the confirmed LSN. So the timer is off, and `end − 1` goes through
 * the library, which makes it exactly `end` on the wire. test/regression/exact-acknowledgement.test.ts shows the
 * transaction that is lost otherwise.
 */

import type { Duplex } from 'node:stream';
import { type Client, type ClientConfig, escapeIdentifier } from 'pg';
import { LogicalReplicationService } from 'pg-logical-replication';
import { formatLsn } from '../connector/position.ts';
import { describeCause, TidemarkError } from '../platform/errors.ts';
import { CopyConnection } from './copy-connection.ts';
import { valueOptions } from './value-session.ts';

export interface ReplicationStreamOptions {
  connection: ClientConfig;
  slot: string;
  publications: string[];
  /** Where to start: the first WAL byte that is still needed. */
  startLsn: bigint;
  /** Whether values come in their types' binary form, where that exists; else as text. Default true. */
  binary?: boolean;
  /** A status goes out at least this often, also while reading is paused. */
  statusIntervalMs: number;
  /** One pgoutput message; the bytes are valid only during the call. */
  onMessage(bytes: Buffer): void;
  /** Everything the server had to send up to `lsn` was sent before this. */
  onKeepalive(lsn: bigint, serverTimeUs: bigint): void;
}

/** Hands over the raw bytes: decoding is ours. */
class RawPlugin {
  readonly options: { publications: string[]; binary: boolean };

  constructor(options: { publications: string[]; binary: boolean }) {
    this.options = options;
  }

  get name() {
    return 'pgoutput';
  }

  parse(buffer: Buffer) {
    return buffer;
  }

  start(client: Client, slotName: string, lastLsn: string) {
    const names = this.options.publications.map((name) => `"${name.replaceAll('"', '""')}"`).join(',');
    const sql =
      `START_REPLICATION SLOT "${slotName.replaceAll('"', '""')}" LOGICAL ${lastLsn} ` +
      `(proto_version '1', publication_names '${names.replaceAll("'", "''")}', binary '${this.options.binary}', messages 'true')`;
    return client.query(sql);
  }
}

const walDataByte = 0x77;
const keepaliveByte = 0x6b;

/** Microseconds from 1970 to Postgres' epoch. */
const epochMicros = 946684800000000n;

/** Without a word from the server for this many status intervals, although each asked for one, it is gone. */
const silentIntervals = 6;

export class ReplicationStream {
  readonly #options: ReplicationStreamOptions;
  readonly #service: LogicalReplicationService;
  readonly #connection: CopyConnection;
  #confirmed: bigint;
  #timer: NodeJS.Timeout | null = null;
  #paused = false;
  #lastHeard = Date.now();
  #lastSent = Date.now();
  #fail: (error: unknown) => void = () => {};
  #closed = false;
  #failed = false;
  /** Rejects when the stream ends for any reason but close(). */
  readonly ended: Promise<never>;

  constructor(options: ReplicationStreamOptions) {
    this.#options = options;
    this.#confirmed = options.startLsn;
    this.ended = new Promise((_, reject) => {
      this.#fail = (error) => {
        if (!this.#closed) reject(error);
      };
    });
    this.ended.catch(() => {});
    // The library would write an LSN as text, and emit events, for every message: what the server streams comes here
    // instead of to it.
    this.#connection = new CopyConnection(options.connection, (bytes, start, end) => {
      if (bytes[start] === walDataByte) this.#walData(bytes, start, end);
      else if (bytes[start] === keepaliveByte) this.#keepalive(bytes, start);
    });
    const config = { ...options.connection, options: valueOptions, connection: this.#connection };
    this.#service = new LogicalReplicationService(config, {
      acknowledge: { auto: false, timeoutSeconds: 0 },
      flowControl: { enabled: false },
    });
    this.#service.on('error', (error: unknown) => this.#fail(this.#error(error)));
  }

  /** Resolves once the server streams; rejects with TM201, TM204 or TM207. */
  async open(): Promise<void> {
    const started = new Promise<void>((resolve) => this.#service.once('start', () => resolve()));
    const plugin = new RawPlugin({
      publications: this.#options.publications,
      binary: this.#options.binary ?? true,
    });
    const running = this.#service
      .subscribe(plugin, this.#options.slot, formatLsn(this.#options.startLsn))
      .then(() => {
        throw new TidemarkError('TM201', 'the source ended the replication connection');
      });
    running.catch((error: unknown) => this.#fail(this.#error(error)));
    await Promise.race([started, this.ended]);
    this.#timer = setInterval(() => {
      if (!this.#paused && Date.now() - this.#lastHeard > this.#options.statusIntervalMs * silentIntervals) {
        this.#fail(
          new TidemarkError('TM201', 'the source sent nothing although asked: the connection is half open'),
        );
        return;
      }
      this.#sendStatus(true);
    }, this.#options.statusIntervalMs);
  }

  /** Lets the server forget the WAL before `lsn`. Call only for what committed Progress covers. */
  confirm(lsn: bigint): void {
    if (lsn <= this.#confirmed) return;
    this.#confirmed = lsn;
    this.#sendStatus(false);
  }

  /** Asks the server where it is; the answer comes as a keepalive. */
  ping(): void {
    this.#sendStatus(true);
  }

  /** Back-pressure: stops reading the socket. Statuses go on. */
  pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#lastHeard = Date.now();
    this.#socket.resume();
  }

  get paused(): boolean {
    return this.#paused;
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#timer) clearInterval(this.#timer);
    // A paused socket never delivers the end of the connection.
    this.#socket.resume();
    const timeout = setTimeout(() => this.#socket.destroy(), 2000);
    await this.#service.destroy().catch(() => {});
    clearTimeout(timeout);
  }

  #error(error: unknown): TidemarkError {
    return streamError(error, this.#options.connection.user);
  }

  #sendStatus(askReply: boolean): void {
    if (this.#closed || this.#service.isStop()) return;
    this.#lastSent = Date.now();
    void this.#service.acknowledge(formatLsn(this.#confirmed - 1n), askReply).catch(() => {});
  }

  /** Layout: 'w', start and end of the WAL, server clock, the message. */
  #walData(bytes: Buffer, start: number, end: number): void {
    const now = Date.now();
    this.#lastHeard = now;
    // The timer comes late where much is read at once, and a server may have little patience.
    if (now - this.#lastSent >= this.#options.statusIntervalMs) this.#sendStatus(false);
    if (this.#closed || this.#failed) return;
    try {
      this.#options.onMessage(bytes.subarray(start + 25, end));
    } catch (error) {
      this.#stumble(error);
    }
  }

  /**
   * Read here because the library's `heartbeat` event reckons from 1999-12-25 instead of 2000-01-01: its times are a
   * week early. Layout: 'k', WAL end, server clock (microseconds since 2000), reply asked.
   */
  #keepalive(bytes: Buffer, start: number): void {
    this.#lastHeard = Date.now();
    const lsn = bytes.readBigUInt64BE(start + 1);
    const serverTimeUs = bytes.readBigInt64BE(start + 9) + epochMicros;
    this.#guard(() => this.#options.onKeepalive(lsn, serverTimeUs));
    if (bytes[start + 17] === 1) this.#sendStatus(false);
  }

  /** After a failure the rest of what the socket already holds is dropped: it comes again from the slot. */
  #guard(run: () => void): void {
    if (this.#closed || this.#failed) return;
    try {
      run();
    } catch (error) {
      this.#stumble(error);
    }
  }

  #stumble(error: unknown): void {
    this.#failed = true;
    this.#fail(error);
    this.pause();
  }

  get #socket(): Duplex {
    return this.#connection.stream;
  }
}

/** 55006: slot in use. 42704: no such slot. 55000: invalidated ("can no longer get changes"). */
export function streamError(error: unknown, user = 'the role'): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const code = (error as { code?: string }).code;
  if (code === '55006')
    return new TidemarkError('TM207', 'the slot is in use by another connection', { cause: error });
  if (code === '42704') {
    return new TidemarkError('TM204', `the slot or publication is missing: ${describeCause(error)}`, {
      cause: error,
    });
  }
  if (code === '55000' || code === '58P01') {
    return new TidemarkError('TM204', `the slot cannot be read any more: ${describeCause(error)}`, {
      cause: error,
    });
  }
  if (code === '42501' || code === '28P01' || code === '28000') {
    return new TidemarkError(
      'TM202',
      `the source refused the replication connection: ${describeCause(error)}`,
      {
        cause: error,
        remedy:
          code === '42501'
            ? `alter role ${escapeIdentifier(user)} replication;`
            : 'Check user and password in source.*, and that the role may log in.',
      },
    );
  }
  return new TidemarkError('TM201', `the replication connection failed: ${describeCause(error)}`, {
    cause: error,
  });
}
