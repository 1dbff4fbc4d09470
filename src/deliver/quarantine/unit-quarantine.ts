/**
 * Quarantine of one Unit: rows that the destination refused are kept whole in the dead-letter topic, later Changes of
 * theirs collect behind them, and the Window goes on without them. In order: dead letters durable, then the ledger, then
 * the Window; so a crash in between repeats work and loses nothing.
 */
import type { Message } from 'kafkajs';
import type { RefusedRow } from '../../connector/failure.ts';
import { tableName } from '../../connector/shape.ts';
import { TidemarkError } from '../../platform/errors.ts';
import { failpoint } from '../../platform/failpoint.ts';
import type { Logger } from '../../platform/log.ts';
import { header, recordFormat, topicNames } from '../../publish/record-format.ts';
import type { OpenDelivery, OwnedUnit } from '../ledger.ts';
import type { StoredChange } from '../stored-change.ts';
import type { UnitStore } from '../unit-store.ts';
import type { DeadLetters } from './dead-letters.ts';
import {
  type QuarantinedChange,
  type QuarantineLedger,
  type RowToWithhold,
  rowId,
  type WithheldRow,
} from './quarantine-ledger.ts';
import type { HeldKey, WithheldChanges } from './withheld-changes.ts';

export interface UnitQuarantineOptions {
  ledger: QuarantineLedger;
  deadLetters: DeadLetters;
  store: UnitStore;
  topicPrefix: string;
  /** As the store numbers them. */
  topics(): readonly string[];
  /** The destination keeps one row per key. */
  merges: boolean;
  /** `quarantine.max.rows` */
  maxRows(): number;
  log: Logger;
}

export class UnitQuarantine {
  readonly #options: UnitQuarantineOptions;
  /** Whether anything is withheld; null: the ledger has to be asked. */
  #any: boolean | null = null;

  constructor(options: UnitQuarantineOptions) {
    this.#options = options;
  }

  /** Somebody else may have changed what the ledger says. */
  invalidate(): void {
    this.#any = null;
  }

  /**
   * Sets aside what must not be in the Window; the store leaves it out from now on.
   * @param refused by the destination when the Window was written before
   * @returns entries that the Window makes unnecessary once it is delivered
   * @throws TidemarkError TM412, TM301, TM403, TM406, TM409
   */
  async setAside(unit: OwnedUnit, open: OpenDelivery, refused: readonly RefusedRow[]): Promise<number[]> {
    if (this.#any === false && refused.length === 0) return [];
    const { ledger, store, merges } = this.#options;
    const known = (await ledger.active(unit)).filter(({ state }) => merges || state !== 'dropped');
    const held = await this.#heldKeys(open, known, refused);
    this.#any = held.size > 0;
    if (held.size === 0) {
      await store.withhold([]);
      return [];
    }
    const { withheldChanges } = await import('./withheld-changes.ts');
    const spilled = await store.spilled();
    const { keys, withheld, superseded } = await withheldChanges(spilled, open, [...held.values()], merges);
    await store.withhold(withheld);
    const knownById = new Map(known.map((row) => [rowId(row), row]));
    await this.#keep(unit, open, { keys, withheld, knownById, refused });
    const ids = superseded.map((key) => knownById.get(this.#idOf(key))?.id);
    return ids.filter((id) => id !== undefined);
  }

  #idOf({ topic, key }: Pick<HeldKey, 'topic' | 'key'>): string {
    return rowId({ topic: this.#options.topics()[topic]!, key });
  }

  /** By rowId. @throws TidemarkError TM405 for a refused row that cannot be told by a key, TM901 for one refused in vain */
  async #heldKeys(
    open: OpenDelivery,
    known: readonly WithheldRow[],
    refused: readonly RefusedRow[],
  ): Promise<Map<string, HeldKey>> {
    const { store, topics, topicPrefix } = this.#options;
    const held = new Map<string, HeldKey>();
    for (const row of known) {
      const topic = topics().indexOf(row.topic);
      // A Window that was tried before may be at the destination: what it went without then, it goes without again.
      const refusedAt = row.sequence === open.sequence ? row.position : null;
      if (topic >= 0) held.set(rowId(row), { topic, key: row.key, bound: row.bound, refusedAt });
    }
    for (const { table, position, reason } of refused) {
      const topicName = topicNames(topicPrefix).table(table);
      const topic = topics().indexOf(topicName);
      const { keyAt } = await import('./withheld-changes.ts');
      const key = topic < 0 ? null : await keyAt(await store.spilled(), open, { topic, position });
      if (!key) {
        throw new TidemarkError('TM405', `a row of ${tableName(table)} was refused (${reason})`, {
          remedy:
            'It has no key by which it could be set aside: mend the destination, or give the table a primary key.',
        });
      }
      const id = rowId({ topic: topicName, key });
      const before = held.get(id);
      const refusedAt = before?.refusedAt && before.refusedAt < position ? before.refusedAt : position;
      held.set(id, { topic, key, bound: before?.bound ?? false, refusedAt });
    }
    return held;
  }

  async #keep(
    unit: OwnedUnit,
    open: OpenDelivery,
    {
      keys,
      withheld,
      knownById,
      refused,
    }: Pick<WithheldChanges, 'keys' | 'withheld'> & {
      knownById: ReadonlyMap<string, WithheldRow>;
      refused: readonly RefusedRow[];
    },
  ): Promise<void> {
    const { ledger, log, maxRows } = this.#options;
    const rows = keys
      .map((key): RowToWithhold | null => {
        const known = knownById.get(this.#idOf(key));
        const noted = !key.refusedAt || known?.sequence === open.sequence;
        if (known && noted && known.bound === key.bound) return null;
        return this.#rowOf(key, open, refused);
      })
      .filter((row) => row !== null);
    if (rows.length > 0) {
      await ledger.withhold(unit, open.sequence, rows, [], maxRows());
      log.warn('rows were refused and are in Quarantine; the rest goes on', {
        unit: unit.unit,
        sequence: open.sequence,
        rows: rows.length,
        reason: rows[0]!.reason,
      });
      await failpoint('after-withhold');
    }
    const now = new Map((await ledger.active(unit)).map((row) => [rowId(row), row]));
    const waiting = await ledger.waiting([...now.values()].map(({ id }) => id));
    const { waitingChanges } = await import('./withheld-changes.ts');
    for await (const batch of waitingChanges(await this.#options.store.spilled(), open, withheld)) {
      const fresh = batch.filter((change) => {
        const row = now.get(this.#idOf({ topic: change.topic, key: change.key! }));
        return row && row.state !== 'dropped' && !waiting.get(row.id)?.has(change.position);
      });
      if (fresh.length > 0) await this.#write(unit, open, fresh);
    }
  }

  #rowOf(key: HeldKey, open: OpenDelivery, refused: readonly RefusedRow[]): RowToWithhold {
    const topic = this.#options.topics()[key.topic]!;
    const own = refused.find(({ position }) => position === key.refusedAt);
    const table = own ? tableName(own.table) : topic.slice(this.#options.topicPrefix.length + 1);
    return {
      topic,
      table,
      key: key.key,
      bound: key.bound,
      reason: own?.reason ?? 'a row in Quarantine got its key from this one, or this one from it',
      position: key.refusedAt ?? open.to,
    };
  }

  async #write(unit: OwnedUnit, open: OpenDelivery, changes: readonly StoredChange[]): Promise<void> {
    const { deadLetters, ledger, topics, maxRows } = this.#options;
    const messages = changes.map((change) => deadLetter(change, topics()[change.topic]!, unit));
    const offsets = await deadLetters.write(messages);
    await failpoint('after-dead-letters');
    const kept = changes.map(
      ({ topic, key, position, bytes }, i): QuarantinedChange => ({
        topic: topics()[topic]!,
        key: key!,
        position,
        offset: offsets[i]!,
        bytes,
      }),
    );
    await ledger.withhold(unit, open.sequence, [], kept, maxRows());
  }
}

/** The Change as it was in its change topic, and whose it is. */
function deadLetter(change: StoredChange, topic: string, { destination, unit }: OwnedUnit): Message {
  const { value, unchanged, exact, pending } = change.load();
  const headers: Record<string, string | Buffer> = {
    [header.format]: recordFormat,
    [header.position]: change.position,
    [header.quarantine]: JSON.stringify({ destination, unit, topic }),
  };
  if (unchanged !== null) headers[header.unchanged] = unchanged;
  if (exact !== null) headers[header.exact] = exact;
  if (pending) headers[header.pending] = '1';
  if (change.eviction) headers[header.eviction] = '1';
  if (change.oldKey) headers[header.oldKey] = Buffer.concat([noSchema, change.oldKey]);
  return { partition: 0, key: change.key && Buffer.concat([noSchema, change.key]), value, headers };
}

/** In the place of a key's schema id, which a change in the window store does not have any more. */
const noSchema = Buffer.alloc(5);
