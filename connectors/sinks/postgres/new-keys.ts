/** Whether the next rows of a table are likely to be new: asked before they are copied straight into it. */

/** Windows that are not tried after keys were taken, at most. */
const longestPause = 64;

export class NewKeys {
  /** By quoted name. */
  readonly #tables = new Map<string, { pause: number; wait: number }>();

  /** Once per Window and table. */
  likely(table: string): boolean {
    const known = this.#tables.get(table);
    if (!known || known.wait === 0) return true;
    known.wait--;
    return false;
  }

  taken(table: string): void {
    const pause = Math.min((this.#tables.get(table)?.pause ?? 0) * 2 || 1, longestPause);
    this.#tables.set(table, { pause, wait: pause });
  }

  wereNew(table: string): void {
    this.#tables.delete(table);
  }
}
