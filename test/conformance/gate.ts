/** A failpoint at which a sink waits until it is let on. */
import { expect } from 'vitest';

export interface Gate {
  failpoint(name: string): Promise<void>;
  /** Resolves when a sink waits at it. */
  waits: Promise<void>;
  /** As `waits`, which must be before the work ends. */
  waitsBefore(work: Promise<unknown>): Promise<void>;
  /** From now on the first that comes waits. */
  close(): void;
  open(): void;
}

export function gateAt(wanted: string): Gate {
  const reached = Promise.withResolvers<void>();
  const opened = Promise.withResolvers<void>();
  let closed = false;
  return {
    async failpoint(name) {
      if (name !== wanted || !closed) return;
      closed = false;
      reached.resolve();
      await opened.promise;
    },
    waits: reached.promise,
    async waitsBefore(work) {
      const first = await Promise.race([reached.promise.then(() => 'waits'), work]);
      expect(first, `at ${wanted} the sink`).toBe('waits');
    },
    close() {
      closed = true;
    },
    open: opened.resolve,
  };
}

/** The value or the error, without a rejection. */
export function settled<T>(work: Promise<T>): Promise<unknown> {
  return work.catch((error: unknown) => error);
}
