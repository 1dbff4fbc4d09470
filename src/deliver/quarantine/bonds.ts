/**
 * Rows whose key changed without carrying all of their columns: the row under the one key supplies the other's values.
 * They wait together, and they are replayed together or not at all: alone, the one would find the other gone, or as it
 * was long ago.
 */
import { headerOf } from '../../platform/kafka-fetch/record-set.ts';
import { header } from '../../publish/record-format.ts';
import type { DeadLetters } from './dead-letters.ts';
import { type QuarantineLedger, rowId, type WithheldRow } from './quarantine-ledger.ts';

export class Bonds {
  /** Entries by what they go with; of the others nothing. */
  readonly #groups: ReadonlyMap<number, ReadonlySet<number>>;

  private constructor(groups: ReadonlyMap<number, ReadonlySet<number>>) {
    this.#groups = groups;
  }

  /**
   * @param active everything that is withheld from the Unit's destination
   * @param replayed where none of these is bound, nothing is read
   * @throws TidemarkError TM306 where the topic lost a Change of a bound row, TM301, TM409
   */
  static async read(
    active: readonly WithheldRow[],
    replayed: readonly number[],
    { ledger, deadLetters }: { ledger: QuarantineLedger; deadLetters: DeadLetters },
  ): Promise<Bonds> {
    const groups = new Map<number, Set<number>>();
    if (!active.some(({ id, bound }) => bound && replayed.includes(id))) return new Bonds(groups);
    const entries = new Map(active.map((row) => [rowId(row), row.id]));
    const changes = await ledger.changesOf(active.filter(({ bound }) => bound).map(({ id }) => id));
    await deadLetters.read(
      changes.map(({ offset }) => offset),
      async (records) => {
        for (const record of records) {
          const oldKey = headerOf(record, header.oldKey);
          if (!record.key || !oldKey || !headerOf(record, header.unchanged)) continue;
          const topic = deadLetters.topicOf(record);
          const idAt = (recordKey: Buffer) => entries.get(rowId({ topic, key: recordKey.subarray(5) }));
          join(groups, idAt(record.key), idAt(oldKey));
        }
      },
    );
    return new Bonds(groups);
  }

  /** The entry that this one goes with and that is not among `ids`, or null. */
  missing(id: number, ids: readonly number[]): number | null {
    return [...(this.#groups.get(id) ?? [])].find((other) => !ids.includes(other)) ?? null;
  }
}

function join(groups: Map<number, Set<number>>, left: number | undefined, right: number | undefined): void {
  if (left === undefined || right === undefined) return;
  const group = new Set([left, right, ...(groups.get(left) ?? []), ...(groups.get(right) ?? [])]);
  for (const id of group) groups.set(id, group);
}
