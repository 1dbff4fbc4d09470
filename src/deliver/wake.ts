/** A bell: loops sleep on it until something changed or the time is up. */
export class Wake {
  #waiting: (() => void)[] = [];
  #rung = false;

  ring(): void {
    this.#rung = true;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }

  /** Resolves at the next ring, at once if it rang since the last wait, or after `timeoutMs`. One waiter at a time. */
  async wait(timeoutMs: number): Promise<void> {
    if (!this.#rung) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, timeoutMs);
      this.#waiting.push(resolve);
      await promise;
      clearTimeout(timer);
    }
    this.#rung = false;
  }
}
