/** A decided Window to its destination: again and again without the rows that it refuses, until it takes the rest. */
import { RefusedRows } from '../connector/failure.ts';
import type { Position } from '../connector/position.ts';
import type { Receipt } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { Acknowledgement, Ledger, OpenDelivery, OwnedUnit } from './ledger.ts';
import { Bonds } from './quarantine/bonds.ts';
import type { DeadLetters } from './quarantine/dead-letters.ts';
import type { QuarantineLedger } from './quarantine/quarantine-ledger.ts';
import { heldShapeReaders, loadReplay, type Replayed } from './quarantine/replay-window.ts';
import type { UnitQuarantine } from './quarantine/unit-quarantine.ts';
import type { TopicContent } from './stored-change.ts';
import type { UnitStore } from './unit-store.ts';
import { type WriteContext, writeWindow } from './write-window.ts';

export interface DeliverContext extends WriteContext {
  ledger: Ledger;
  quarantine: UnitQuarantine;
  quarantineLedger: QuarantineLedger;
  deadLetters: DeadLetters;
  /** An empty store for the rows that come out of Quarantine, and its end. */
  replayStore<T>(work: (store: UnitStore) => Promise<T>): Promise<T>;
}

export interface Delivered extends Omit<Acknowledgement, 'credentials'> {
  /** Changes that were in it. */
  changes: number;
}

/** A destination that refuses rows for ever, one at a time, would never end the Window. */
const mostRounds = 10_000;

/** @throws what the sink throws, but for RefusedRows; TM412 when too many rows are refused */
export async function deliverWindow(
  unit: OwnedUnit,
  open: OpenDelivery,
  context: DeliverContext,
): Promise<Delivered> {
  if (open.replays.length > 0)
    return context.replayStore((store) => deliverReplay(unit, open, { ...context, store }));
  try {
    return await deliverRest(unit, open, context);
  } finally {
    // What is withheld from this Window is in the next one until that is looked into.
    await context.store.withhold([]);
  }
}

async function deliverRest(unit: OwnedUnit, open: OpenDelivery, context: DeliverContext): Promise<Delivered> {
  const { store, quarantine, topics } = context;
  let refused: RefusedRows | null = null;
  for (let round = 0; round < mostRounds; round++) {
    const superseded = await quarantine.setAside(unit, open, refused?.rows ?? []);
    const content = await store.content(open);
    const result = await attempt(unit, open, content, context);
    if (!(result instanceof RefusedRows))
      return {
        ...result,
        replayed: [],
        superseded,
        schemaIds: schemaIdsOf(content, topics),
        changes: changesIn(content),
      };
    if (refused && sameRows(refused, result)) throw refusedInVain(result);
    refused = result;
  }
  throw refusedInVain(refused!);
}

async function deliverReplay(
  unit: OwnedUnit,
  open: OpenDelivery,
  context: DeliverContext,
): Promise<Delivered> {
  const { ledger, quarantineLedger, quarantine, deadLetters, store, schemas, topics } = context;
  const readers = await heldShapeReaders(schemas, await ledger.schemaIds(unit));
  const active = await quarantineLedger.active(unit);
  // What was dropped since the Window was decided holds it up no more.
  const asked = open.replays.filter((id) => active.some((row) => row.id === id && row.state === 'replaying'));
  const bonds = await Bonds.read(active, asked, { ledger: quarantineLedger, deadLetters });
  const holdAgain = async (ids: readonly number[], refused: readonly HeldAgain[]) => {
    const again = withBound(ids, refused, bonds);
    if (again.length > 0) await quarantineLedger.refusedAgain(unit, open.sequence, again);
    return ids.filter((id) => !again.some((entry) => entry.id === id));
  };
  let left = await holdAgain(asked, []);
  for (;;) {
    await store.clear();
    const place = { ledger: quarantineLedger, deadLetters, store, topics, destination: unit.destination };
    const replayed = await loadReplay(left, place);
    const now = { ...open, replays: left };
    const result = await attempt(unit, now, replayed.content, { ...context, schemas: readers });
    quarantine.invalidate();
    if (!(result instanceof RefusedRows))
      return {
        ...result,
        replayed: left,
        superseded: [],
        schemaIds: {},
        changes: changesIn(replayed.content),
      };
    left = await holdAgain(left, refusedEntries(result, replayed));
  }
}

interface HeldAgain {
  id: number;
  reason: string;
}

/** Entries of `ids` that are not replayed: those that were refused, and whatever goes with one that is not replayed. */
function withBound(ids: readonly number[], refused: readonly HeldAgain[], bonds: Bonds): HeldAgain[] {
  const kept = ids.filter((id) => !refused.some((entry) => entry.id === id));
  const torn = kept.flatMap((id) => {
    const other = bonds.missing(id, kept);
    return other === null
      ? []
      : [{ id, reason: `a change of key binds it to entry ${other}, which still waits` }];
  });
  return [...refused, ...torn];
}

async function attempt(
  unit: OwnedUnit,
  open: OpenDelivery,
  content: readonly TopicContent[],
  context: DeliverContext,
): Promise<{ receipt: Receipt; durationMs: number } | RefusedRows> {
  const startedAt = performance.now();
  try {
    const receipt = await writeWindow(unit, open, content, context);
    return { receipt, durationMs: performance.now() - startedAt };
  } catch (error) {
    if (error instanceof RefusedRows) return error;
    throw error;
  }
}

/** @throws RefusedRows where the destination refuses what is in none of the entries */
function refusedEntries(refused: RefusedRows, { entryAt }: Replayed): HeldAgain[] {
  const found = new Map<number, string>();
  for (const { position, reason } of refused.rows) {
    const id = entryAt.get(position as Position);
    if (id === undefined) throw refusedInVain(refused);
    found.set(id, reason);
  }
  return [...found].map(([id, reason]) => ({ id, reason }));
}

function sameRows(before: RefusedRows, now: RefusedRows): boolean {
  const seen = new Set(before.rows.map(({ position }) => position));
  return now.rows.every(({ position }) => seen.has(position));
}

function refusedInVain(refused: RefusedRows): TidemarkError {
  return new TidemarkError('TM405', `${refused.message}, and again without them`, { cause: refused });
}

function schemaIdsOf(content: readonly TopicContent[], topics: readonly string[]): Record<string, number> {
  return Object.fromEntries(content.map(({ topic, schemaId }) => [topics[topic]!, schemaId]));
}

function changesIn(content: readonly TopicContent[]): number {
  return content.reduce((sum, { changes }) => sum + changes, 0);
}
