/**
 * Where the stream is made to wait: before the first Transaction that commits at or beyond an LSN. pgoutput says at its
 * Begin where a Transaction commits, so none is ever half through.
 */

const beginByte = 0x42;

export class StreamGate {
  #lsn: bigint | null = null;
  #arrived = Promise.resolve();
  #arrive: () => void = () => {};

  /**
   * @param lsn 0: before the next Transaction, wherever it commits
   * @returns settles when everything that commits before `lsn` has come through
   */
  close(lsn: bigint): Promise<void> {
    this.#lsn = lsn;
    this.#arrived = new Promise((resolve) => {
      this.#arrive = resolve;
    });
    return this.#arrived;
  }

  get closed(): boolean {
    return this.#lsn !== null;
  }

  open(): void {
    this.#lsn = null;
    this.#arrive();
  }

  /** Whether the message begins a Transaction that must wait. */
  stops(message: Buffer): boolean {
    if (this.#lsn === null || message[0] !== beginByte) return false;
    // B: commit LSN, time, xid
    if (message.readBigUInt64BE(1) < this.#lsn) return false;
    this.#arrive();
    return true;
  }

  /** Between two Transactions. @param lsn everything that commits before it has come through */
  passed(lsn: bigint): void {
    if (this.#lsn !== null && lsn >= this.#lsn) this.#arrive();
  }
}
