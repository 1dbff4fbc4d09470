/** A terminal's other screen: frames replace each other there, and what was before is back at the end. */

export class Terminal {
  readonly #out: NodeJS.WriteStream;
  readonly #restore = () => this.close();
  #open = true;

  constructor(out: NodeJS.WriteStream) {
    this.#out = out;
    // Also when the process ends in a way nobody planned: a terminal without a cursor is no good to anybody.
    process.once('exit', this.#restore);
    out.write('\u001b[?1049h\u001b[?25l\u001b[2J');
  }

  get columns(): number {
    return this.#out.columns || 80;
  }

  get rows(): number {
    return this.#out.rows || 24;
  }

  /** One write per frame, over the last one and without clearing before it: nothing flickers. */
  draw(lines: readonly string[]): void {
    if (!this.#open) return;
    this.#out.write(`\u001b[H${lines.map((line) => `${line}\u001b[K`).join('\r\n')}\u001b[J`);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    process.off('exit', this.#restore);
    this.#out.write('\u001b[?25h\u001b[?1049l');
  }
}
