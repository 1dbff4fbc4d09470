/** Lines on their way into a table: sent in blocks, one under way while the next is put together. */
import type { Server } from './client.ts';

export interface BlocksOptions {
  server: Server;
  table: string;
  columns: readonly string[];
  blockBytes: number;
  /** Begins the tokens of its blocks: nothing else ever sent has the same. */
  token: string;
  about: string;
}

export class Blocks {
  readonly #options: BlocksOptions;
  #text = '';
  #sent = 0;
  #sending: Promise<void> = Promise.resolve();
  #bytes = 0;

  constructor(options: BlocksOptions) {
    this.#options = options;
  }

  /** Blocks sent so far, each of which is a part of the table at least. */
  get count(): number {
    return this.#sent;
  }

  /** Bytes sent, and those that are to be. */
  get bytes(): number {
    return this.#bytes + Buffer.byteLength(this.#text);
  }

  get pending(): boolean {
    return this.#text !== '';
  }

  /** Resolves when there is room for more; undefined where there is. */
  add(line: string): Promise<void> | undefined {
    this.#text += line;
    return this.#text.length >= this.#options.blockBytes ? this.#send() : undefined;
  }

  /** Everything is in the table. @throws TidemarkError */
  async flush(): Promise<void> {
    if (this.#text !== '') await this.#send();
    await this.#sending;
  }

  /** Waits for what is under way, whatever became of it. */
  async settle(): Promise<void> {
    await this.#sending.catch(() => undefined);
  }

  async #send(): Promise<void> {
    const lines = this.#text;
    this.#text = '';
    await this.#sending;
    const { server, table, columns, token, about } = this.#options;
    const sending = server.insert(table, columns, lines, `${token}/${this.#sent++}`, about).then((bytes) => {
      this.#bytes += bytes;
    });
    // Whoever waits for it next meets the error; until then it is not unhandled.
    sending.catch(() => undefined);
    this.#sending = sending;
  }
}
