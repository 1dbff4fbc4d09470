/**
 * Instance files are looked at again while the process runs: settings take effect with the next Window, and new
 * credentials are tried before they are used. What cannot be read, or is wrong, changes nothing.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { asTidemarkError } from '../platform/errors.ts';
import { errorFields, type Logger } from '../platform/log.ts';
import type { DestinationConfig } from '../platform/resolved-config.ts';
import { Wake } from './wake.ts';

export interface SettingsWatchOptions {
  /** Reads all instance files anew, with what they refer to. @throws TidemarkError TM101, TM102 */
  reload(): Promise<readonly DestinationConfig[]>;
  /** Told of each destination's settings as they are now, of one destination one after the other. */
  changed(destination: DestinationConfig): Promise<void>;
  log: Logger;
}

const pollMs = 10_000;
/** What is being tried at a clean stop may take this long to finish. */
const stopGraceMs = 5_000;

export class SettingsWatch {
  readonly #options: SettingsWatchOptions;
  readonly #wake = new Wake();
  /** By destination, what is being made of its settings: a server that does not answer holds up its own alone. */
  readonly #changing = new Map<string, Promise<void>>();
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
    const changing = Promise.all(this.#changing.values());
    await Promise.race([changing, sleep(stopGraceMs, undefined, { ref: false })]);
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      await this.#wake.wait(pollMs);
      if (this.#stopped) return;
      await this.#once();
    }
  }

  async #once(): Promise<void> {
    const { reload, log } = this.#options;
    try {
      for (const destination of await reload()) this.#change(destination);
      this.#lastFailure = null;
    } catch (caught) {
      const error = asTidemarkError(caught);
      // Once: it is looked at again and again.
      if (error.message !== this.#lastFailure)
        log.warn('the settings cannot be read anew; those from before stay', errorFields(error));
      this.#lastFailure = error.message;
    }
  }

  #change(destination: DestinationConfig): void {
    const { changed, log } = this.#options;
    const { name } = destination;
    if (this.#changing.has(name)) return;
    const changing = changed(destination)
      .catch((error) => log.warn('settings do not take effect', { destination: name, ...errorFields(error) }))
      .finally(() => this.#changing.delete(name));
    this.#changing.set(name, changing);
  }
}
