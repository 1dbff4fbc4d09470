/**
 * Statements with one COPY … FROM STDIN among them, and its rows, in one round trip: the server reads them on when it gets
 * there. Where a statement before the rows' end fails it throws the rest away, as the protocol has it (PostgreSQL manual,
 * "COPY Operations"). Waiting for each answer before the next step left the server idle for a fifth of the time.
 */
import type { Submittable } from 'pg';

/** Of pg's connection, what its types leave out. */
interface CopyConnection {
  stream: { cork(): void; uncork(): void; write(bytes: Uint8Array): boolean };
  query(text: string): void;
  endCopyFrom(): void;
}

const copyData = 'd'.charCodeAt(0);

export class CopyIn implements Submittable {
  readonly #text: string;
  readonly #data: Uint8Array;
  readonly #done = Promise.withResolvers<void>();

  /** @param data the whole input */
  constructor(text: string, data: Uint8Array) {
    this.#text = text;
    this.#data = data;
  }

  /** @throws what the server says, or that the connection is lost */
  get done(): Promise<void> {
    return this.#done.promise;
  }

  submit(connection: unknown): void {
    const { stream } = connection as CopyConnection;
    const head = Buffer.alloc(5);
    head[0] = copyData;
    head.writeUInt32BE(this.#data.length + 4, 1);
    stream.cork();
    (connection as CopyConnection).query(this.#text);
    stream.write(head);
    stream.write(this.#data);
    (connection as CopyConnection).endCopyFrom();
    stream.uncork();
  }

  handleCopyInResponse(): void {}

  handleCommandComplete(): void {}

  /** Of a statement that gives rows: nothing here does. */
  handleRowDescription(): void {}

  handleDataRow(): void {}

  handleError(error: Error): void {
    this.#done.reject(error);
  }

  handleReadyForQuery(): void {
    this.#done.resolve();
  }
}
