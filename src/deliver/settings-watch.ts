/**
 * Instance files are looked at again while the process runs: settings take effect with the next Window, and new
 * credentials are tried before they are used. What cannot be read, or is wrong, changes nothing.
 */
import { asTidemarkError } from '../platform/errors.ts';
import { errorFields, type Logger } from '../platform/log.ts';
import type { DestinationConfig } from '../platform/resolved-config.ts';
import { Wake } from './wake.ts';

export interface SettingsWatchOptions {
  /** Reads all instance files anew, with what they refer to. @throws TidemarkError TM101, TM102 */
  reload(): Promise<readonly DestinationConfig[]>;
  /** Told of each destination's settings as they are now. Must not throw. */
  changed(destination: DestinationConfig): Promise<void>;
  log: Logger;
}

const pollMs = 10_000;

export class SettingsWatch {
  readonly #options: SettingsWatchOptions;
  readonly #wake = new Wake();
  #stopped = false;
  #lastFailure: string | null = null;
  #running: Promise<void> | null = null;

  constructor(options: SettingsWatchOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Something was refused: perhaps there are new credentials already. */
  look(): void {
    this.#wake.ring();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#wake.ring();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      await this.#wake.wait(pollMs);
      if (this.#stopped) return;
      await this.#once();
    }
  }

  async #once(): Promise<void> {
    const { reload, changed, log } = this.#options;
    try {
      for (const destination of await reload()) await changed(destination);
      this.#lastFailure = null;
    } catch (caught) {
      const error = asTidemarkError(caught);
      // Once: it is looked at again and again.
      if (error.message !== this.#lastFailure)
        log.warn('the settings cannot be read anew; those from before stay', errorFields(error));
      this.#lastFailure = error.message;
    }
  }
}
