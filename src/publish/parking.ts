/**
 * Which tables are parked, and which of them come back in the Transaction that is being read. A table that comes back
 * stays parked until that Transaction's end, so that a replay of any part of it counts alike.
 */
import type { Position } from '../connector/position.ts';
import type { ParkedTable } from './progress.ts';

/** What becomes of the changes for which the table was parked. */
export const resumePolicies = ['evolve', 'text'] as const;
export type ResumePolicy = (typeof resumePolicies)[number];

const resumePrefixes: Record<ResumePolicy, string> = {
  evolve: 'tidemark.resume',
  text: 'tidemark.resume.text',
};

/** Prefix of the logical message that asks for a parked table; its content is the table's name. */
export function resumePrefix(as: ResumePolicy): string {
  return resumePrefixes[as];
}

/** Of a logical message; null where it asks for no table. */
export function resumePolicy(prefix: string): ResumePolicy | null {
  return resumePolicies.find((as) => resumePrefixes[as] === prefix) ?? null;
}

/** A parked table that comes back: its raw messages are Changes of the Transaction that asked for it. */
export interface Resuming {
  table: string;
  parked: ParkedTable;
  as: ResumePolicy;
}

export class Parking {
  /** By `schema.name`. */
  readonly #tables: Map<string, ParkedTable>;
  /** Tables that came back, with the end of the Transaction in which they did: Progress before it still has them. */
  readonly #resumed = new Map<string, { parked: ParkedTable; position: Position }>();
  #resuming: Resuming | null = null;
  /** The table that comes back had to be parked again on the way. */
  #again: ParkedTable | null = null;

  constructor(tables: Readonly<Record<string, ParkedTable>>) {
    this.#tables = new Map(Object.entries(tables));
  }

  /** As of now; the Position from which it is parked. */
  get(name: string): ParkedTable | undefined {
    return this.#tables.get(name);
  }

  park(name: string, parked: ParkedTable): void {
    if (this.comesBack(name)) this.#again = parked;
    else this.#tables.set(name, parked);
  }

  /** Whether messages of the table go to the parked topic. */
  holds(name: string): boolean {
    return this.#tables.has(name) && !this.comesBack(name);
  }

  /** Until it has to be parked again. */
  comesBack(name: string): boolean {
    return this.#resuming?.table === name && this.#again === null;
  }

  get resuming(): Resuming | null {
    return this.#resuming;
  }

  /** @returns false where the table is not parked, or another one is coming back */
  startResume(table: string, as: ResumePolicy = 'evolve'): boolean {
    const parked = this.#tables.get(table);
    if (!parked || this.#resuming) return false;
    this.#resuming = { table, parked, as };
    return true;
  }

  /** @param position the end of the Transaction */
  endTransaction(position: Position): void {
    const resuming = this.#resuming;
    if (!resuming) return;
    const again = this.#again;
    this.#resuming = null;
    this.#again = null;
    this.#resumed.set(resuming.table, { parked: resuming.parked, position });
    if (again) this.#tables.set(resuming.table, again);
    else this.#tables.delete(resuming.table);
  }

  /** The parked tables that Progress at `position` names: one that is parked later is parked again after a restart. */
  at(position: Position): Record<string, ParkedTable> {
    const tables = new Map(this.#tables);
    for (const [name, { parked, position: end }] of this.#resumed)
      if (position < end) tables.set(name, parked);
    return Object.fromEntries([...tables].filter(([, parked]) => parked.position <= position));
  }
}
