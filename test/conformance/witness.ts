/** What the sinks of one kind said and passed while the suite drove them. */
import { inspect } from 'node:util';
import { TidemarkError } from '../../src/connector/failure.ts';
import type { OptionValues, SinkKind } from '../../src/connector/sink.ts';

/** In a value of many rows: no error and no log line may have it. */
export const planted = 'planted-value-8c1f';

/** Shorter secrets stand in other words by chance. */
const tellingLength = 12;

export class Witness {
  readonly failpoints = new Set<string>();
  readonly #said: string[] = [];
  readonly #secrets = new Set<string>();

  log(level: string, message: string, fields: Record<string, unknown> = {}): void {
    this.#said.push(inspect({ level, message, fields }, { depth: 8 }));
  }

  /** Notes the error as whoever prints it whole would. */
  caught(error: unknown): void {
    const remedy = error instanceof TidemarkError ? error.remedy : '';
    this.#said.push(`${inspect(error, { depth: 8 })} ${remedy}`);
  }

  /** What the instance file declares a secret. */
  opened(kind: SinkKind, options: OptionValues): void {
    for (const [name, { type }] of Object.entries(kind.options)) {
      const value = options[name];
      if (type !== 'secret' || typeof value !== 'string') continue;
      const password = URL.canParse(value) ? decodeURIComponent(new URL(value).password) : value;
      if (password.length >= tellingLength) this.#secrets.add(password);
    }
  }

  /** Lines that hold what they must not. */
  leaks(): string[] {
    const forbidden = [planted, ...this.#secrets];
    return this.#said.filter((line) => forbidden.some((text) => line.includes(text)));
  }
}
