/** The sink that a destination is written with: another one takes its place between two Windows, never within one. */
import type { Sink } from '../connector/sink.ts';
import { errorFields, type Logger } from '../platform/log.ts';

/** A sink, and the version of the credentials that it was opened with. */
export interface OpenSink {
  sink: Sink;
  credentials: number;
}

interface InUse extends OpenSink {
  users: number;
}

export class SinkInUse {
  readonly #log: Logger;
  #current: InUse;
  readonly #closing = new Set<Promise<void>>();

  constructor(first: OpenSink, log: Logger) {
    this.#log = log;
    this.#current = { ...first, users: 0 };
  }

  get mode(): Sink['mode'] {
    return this.#current.sink.mode;
  }

  get credentials(): number {
    return this.#current.credentials;
  }

  /** The work keeps its sink to its end, whatever takes its place meanwhile. */
  async with<T>(work: (open: OpenSink) => Promise<T>): Promise<T> {
    const used = this.#current;
    used.users++;
    try {
      return await work(used);
    } finally {
      used.users--;
      if (used !== this.#current && used.users === 0) this.#close(used);
    }
  }

  replace(next: OpenSink): void {
    const before = this.#current;
    this.#current = { ...next, users: 0 };
    if (before.users === 0) this.#close(before);
  }

  async close(): Promise<void> {
    this.#close(this.#current);
    await Promise.all(this.#closing);
  }

  #close({ sink }: InUse): void {
    const closed: Promise<void> = sink
      .close()
      .catch((error) => this.#log.warn('the sink did not close', errorFields(error)))
      .then(() => void this.#closing.delete(closed));
    this.#closing.add(closed);
  }
}
