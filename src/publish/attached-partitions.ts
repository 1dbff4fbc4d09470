/**
 * Partitions that nobody has looked at yet. One that was attached brings rows along that are in no stream, so that an
 * update may leave a column untouched of a row that no destination has; until its rows are read, such an update says so.
 */
export class AttachedPartitions {
  /** Partitioned tables: oid to topic. */
  #roots = new Map<number, string>();
  #known = new Set<number>();
  /** Oid to the root's topic, from its first Relation on. */
  readonly #unseen = new Map<number, string>();
  #lastRoot: string | null = null;

  /** What the publications have. @param known partitions whose rows come through the stream or were asked for */
  follow(roots: ReadonlyMap<number, string>, known: Iterable<number>): void {
    this.#roots = new Map(roots);
    this.#known = new Set(known);
  }

  /** A Relation of the stream. A partition's comes right after its root's. */
  described(oid: number): void {
    const root = this.#lastRoot;
    this.#lastRoot = this.#roots.get(oid) ?? null;
    if (root !== null && this.#lastRoot === null && !this.#known.has(oid)) this.#unseen.set(oid, root);
  }

  /** Nothing of them has to be read. */
  settled(partitions: Iterable<number>): void {
    for (const oid of partitions) this.#unseen.delete(oid);
  }

  /** From here on the snapshot itself says that rows may be missing. */
  snapshotOpened(topic: string): void {
    for (const [oid, root] of this.#unseen)
      if (root === topic && this.#known.has(oid)) this.#unseen.delete(oid);
  }

  /** Some row of the table may be in no destination. */
  incomplete(topic: string): boolean {
    if (this.#unseen.size === 0) return false;
    for (const root of this.#unseen.values()) if (root === topic) return true;
    return false;
  }
}
