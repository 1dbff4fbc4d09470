/** The pipeline's log during a demo: all of it in a file, and the last warning for whoever watches. */
import { appendFileSync, statSync } from 'node:fs';
import { createLogger, type Logger } from '../platform/log.ts';

export interface Notice {
  atMs: number;
  message: string;
  code: string | null;
  remedy: string | null;
}

/** The file takes no more after this; a demo may run for days. */
const largestFileBytes = 8 << 20;

export class Notices {
  last: Notice | null = null;
  readonly log: Logger;
  readonly #file: string;
  readonly #tell: (notice: Notice) => void;
  #bytes = 0;

  /** @param tell called for every warning and error */
  constructor(file: string, tell: (notice: Notice) => void) {
    this.#file = file;
    this.#tell = tell;
    this.#bytes = statSync(file, { throwIfNoEntry: false })?.size ?? 0;
    this.log = createLogger({ level: 'info', write: (line) => this.#write(line) });
  }

  #write(line: string): void {
    if (this.#bytes < largestFileBytes) appendFileSync(this.#file, line, { mode: 0o600 });
    this.#bytes += line.length;
    const { level, message, error, code, remedy } = JSON.parse(line) as Record<string, string | undefined>;
    if (level !== 'warn' && level !== 'error') return;
    this.last = {
      atMs: Date.now(),
      message: error ? `${message}: ${error}` : (message ?? ''),
      code: code ?? null,
      remedy: remedy ?? null,
    };
    this.#tell(this.last);
  }
}
