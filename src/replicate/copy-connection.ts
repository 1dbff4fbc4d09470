/**
 * pg's connection, for a session that streams or copies much: CopyData is handed over where the socket put it, without an object per
 * message, and everything else goes to pg's own parser. Where there is no TLS the socket reads into one buffer, again and
 * again: a buffer for each read would be garbage as large as the WAL.
 */
import { EventEmitter } from 'node:events';
import { Socket } from 'node:net';
import pg, { type ClientConfig } from 'pg';

/** One CopyData's content; the bytes are valid only during the call. */
export type CopyDataListener = (bytes: Buffer, start: number, end: number) => void;

const readBytes = 128 << 10;
const copyDataCode = 0x64;
/** Type and length. */
const headBytes = 5;
/** What one very large message needed is not kept. */
const largestKept = 4 << 20;

/** Cuts what a server sends into its messages ("Message Formats" of the Postgres manual). */
export class MessageFramer {
  readonly #copyData: CopyDataListener;
  readonly #other: (message: Buffer) => void;
  /** The message that a read ended in. */
  #part = Buffer.allocUnsafeSlow(readBytes);
  #partBytes = 0;

  /** @param other gets a copy of each other message, whole */
  constructor(copyData: CopyDataListener, other: (message: Buffer) => void) {
    this.#copyData = copyData;
    this.#other = other;
  }

  /** @param length of what was read, from the start of `bytes` */
  read(bytes: Buffer, length: number): void {
    let at = this.#partBytes > 0 ? this.#complete(bytes, length) : 0;
    while (length - at >= headBytes) {
      const end = at + sizeOf(bytes, at);
      if (end > length) break;
      this.#message(bytes, at, end);
      at = end;
    }
    if (at < length) this.#keep(bytes, at, length);
  }

  /** @returns where the message that an earlier read began ends */
  #complete(bytes: Buffer, length: number): number {
    let at = 0;
    if (this.#partBytes < headBytes) {
      at = Math.min(headBytes - this.#partBytes, length);
      this.#keep(bytes, 0, at);
      if (this.#partBytes < headBytes) return at;
    }
    const size = sizeOf(this.#part, 0);
    const end = Math.min(at + size - this.#partBytes, length);
    this.#reserve(size);
    this.#keep(bytes, at, end);
    if (this.#partBytes < size) return end;
    const part = this.#part;
    this.#partBytes = 0;
    if (part.length > largestKept) this.#part = Buffer.allocUnsafeSlow(readBytes);
    this.#message(part, 0, size);
    return end;
  }

  #keep(bytes: Buffer, start: number, end: number): void {
    this.#reserve(this.#partBytes + end - start);
    bytes.copy(this.#part, this.#partBytes, start, end);
    this.#partBytes += end - start;
  }

  #reserve(size: number): void {
    if (size <= this.#part.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.ceil(size * 1.25));
    this.#part.copy(larger, 0, 0, this.#partBytes);
    this.#part = larger;
  }

  #message(bytes: Buffer, start: number, end: number): void {
    if (bytes[start] === copyDataCode) this.#copyData(bytes, start + headBytes, end);
    else this.#other(Buffer.from(bytes.subarray(start, end)));
  }
}

/** Of the message there, head included. */
function sizeOf(bytes: Buffer, at: number): number {
  return 1 + Math.max(4, bytes.readUInt32BE(at + 1));
}

interface PgConnection {
  attachListeners(stream: EventEmitter): void;
}

export class CopyConnection extends pg.Connection {
  readonly #framer: MessageFramer;
  /** What pg's parser reads. */
  readonly #rest: EventEmitter;

  constructor({ ssl, keepAlive, keepAliveInitialDelayMillis }: ClientConfig, copyData: CopyDataListener) {
    const rest = new EventEmitter();
    const framer = new MessageFramer(copyData, (message) => rest.emit('data', message));
    const stream = ssl ? {} : { stream: () => bufferedSocket(framer) };
    super({ ssl, keepAlive, keepAliveInitialDelayMillis, ...stream });
    this.#rest = rest;
    this.#framer = framer;
  }

  /** Called by pg with the stream that the session is on: under TLS not the one that connected. */
  attachListeners(stream: EventEmitter): void {
    const { attachListeners } = pg.Connection.prototype as unknown as PgConnection;
    attachListeners.call(this as unknown as PgConnection, this.#rest);
    // Of a socket with a buffer of its own there are no such events.
    stream.on('data', (bytes: Buffer) => this.#framer.read(bytes, bytes.length));
    stream.on('end', () => this.#rest.emit('end'));
  }
}

function bufferedSocket(framer: MessageFramer): Socket {
  const buffer = Buffer.allocUnsafeSlow(readBytes);
  const callback = (length: number) => {
    framer.read(buffer, length);
    return true;
  };
  const options = { onread: { buffer, callback } };
  return new Socket(options as ConstructorParameters<typeof Socket>[0]);
}
