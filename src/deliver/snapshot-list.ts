/** The snapshots of whole tables that Progress tells of: which were under way at a Position, and which ended where. */
import type { Position } from '../connector/position.ts';
import type { Progress } from '../publish/progress.ts';

export interface OpenSnapshot {
  topic: string;
  id: string;
  since: Position;
}

export interface EndedSnapshot extends OpenSnapshot {
  until: Position;
  /** Registry id of the value schema of its last chunk. */
  schemaId: number;
  /** That it brought. */
  rows: number;
}

/** What a Window has to do with snapshots; decided with it. */
export interface WindowSnapshots {
  /** Begun before the Window's end, and not over at it. */
  open: OpenSnapshot[];
  /** Ended in it, in order. */
  ended: EndedSnapshot[];
}

export const noSnapshots: WindowSnapshots = { open: [], ended: [] };

interface KnownSnapshot extends OpenSnapshot {
  destination: string | null;
  end: Omit<EndedSnapshot, keyof OpenSnapshot> | null;
  /** Progress did not name it any more from here on: it ended, or was given up. */
  gone: Position | null;
}

export class SnapshotList {
  /** By id. */
  readonly #known = new Map<string, KnownSnapshot>();

  /** In order. Every Progress beyond `since` names a snapshot, until one has named its end; also one inside a Transaction. */
  push({ kind, position, snapshots }: Pick<Progress, 'kind' | 'position' | 'snapshots'>): void {
    if (kind === 'fence') return;
    const named = new Set<string>();
    for (const [topic, state] of Object.entries(snapshots)) {
      const { id, since, until, schemaId, rows, destination } = state;
      named.add(id);
      if (since === null) continue;
      const end = until !== null && schemaId !== null ? { until, schemaId, rows: Number(rows) } : null;
      this.#known.set(id, { topic, id, since, destination, end, gone: null });
    }
    for (const known of this.#known.values()) if (!named.has(known.id)) known.gone ??= position;
  }

  /** @param from exclusive @param to inclusive */
  within(from: Position, to: Position, destination: string, topics: readonly string[]): WindowSnapshots {
    const found: WindowSnapshots = { open: [], ended: [] };
    for (const { topic, id, since, destination: only, end, gone } of this.#known.values()) {
      if ((only !== null && only !== destination) || since >= to || !topics.includes(topic)) continue;
      if (end && end.until > from && end.until <= to) found.ended.push({ topic, id, since, ...end });
      else if (end ? end.until > to : gone === null || gone > to) found.open.push({ topic, id, since });
    }
    found.ended.sort((a, b) => (a.until < b.until ? -1 : 1));
    return found;
  }

  /** Forgets what was over at `mark`. */
  dropBefore(mark: Position): void {
    for (const { id, end, gone } of this.#known.values()) {
      const over = end?.until ?? gone;
      // While Progress goes on naming it, forgetting it would be to no avail.
      if (over !== null && over <= mark && gone !== null) this.#known.delete(id);
    }
  }

  clear(): void {
    this.#known.clear();
  }
}
