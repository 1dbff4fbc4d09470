/** What was fetched and is not taken yet, of all partitions together: beyond the limit nothing more is asked for. */
export class Budget {
  readonly #limitBytes: number;
  readonly #relieved: () => void;
  #heldBytes = 0;

  /** @param relieved there is room again */
  constructor(limitBytes: number, relieved: () => void) {
    this.#limitBytes = limitBytes;
    this.#relieved = relieved;
  }

  get exhausted(): boolean {
    return this.#heldBytes >= this.#limitBytes;
  }

  /** @returns to be called by each of the holders when it is done */
  hold(bytes: number, holders: number): () => void {
    this.#heldBytes += bytes;
    let left = holders;
    return () => {
      if (--left > 0) return;
      this.#heldBytes -= bytes;
      this.#relieved();
    };
  }
}
