/** A Window into its sink, and what the sink says it holds. */
import type { AppendWindow, MergeWindow, Receipt, Sink } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import { appendTables, mergeTables } from './compact-window.ts';
import type { OpenDelivery, OwnedUnit } from './ledger.ts';
import type { RowReaders } from './row-schemas.ts';
import type { TopicContent } from './stored-change.ts';
import { sweepsOf, withSweeps } from './sweeps.ts';
import type { UnitStore } from './unit-store.ts';

/**
 * Compares the destination's own Position, the truth about what was merged, with the ledger.
 * @throws TidemarkError TM404 when it lost what it acknowledged, or holds what the ledger does not know
 */
export async function checkHeld(sink: Sink, { destination, unit, merged, open }: OwnedUnit): Promise<void> {
  if (sink.mode === 'send') return;
  const held = await sink.held(unit);
  // A Window of rows that came out of Quarantine ends where it begins: only its number tells whether it is there.
  if (held?.position === merged?.position && held?.sequence === merged?.sequence) return;
  if (merged && (!held || held.position < merged.position || held.sequence < merged.sequence)) {
    throw new TidemarkError(
      'TM404',
      `${destination} holds ${unit} up to ${held?.position ?? 'nothing'}; ${merged.position} was acknowledged`,
    );
  }
  // Merged but not recorded: merging it again answers alreadyHeld.
  if (open && held!.position === open.to && held!.sequence === open.sequence) return;
  throw new TidemarkError(
    'TM404',
    `${destination} holds ${unit} up to ${held!.position}, which the ledger does not know`,
    {
      remedy:
        'The control database was restored, or the destination belongs to another pipeline. Restore the newer one, or rebuild the destination.',
    },
  );
}

export interface WriteContext {
  sink: Sink;
  store: UnitStore;
  schemas: RowReaders;
  /** As the store numbers them. */
  topics: readonly string[];
  /** Nothing may be written for the Unit any more. */
  gone(): boolean;
}

/** Merges or appends a decided Window whose records are all in the store. @throws what the sink throws */
export async function writeWindow(
  unit: OwnedUnit,
  open: OpenDelivery,
  content: readonly TopicContent[],
  { sink, store, schemas, topics, gone }: WriteContext,
): Promise<Receipt> {
  const base: Omit<AppendWindow, 'tables'> = {
    sourceId: unit.sourceId,
    destination: unit.destination,
    unit: unit.unit,
    sequence: open.sequence,
    from: open.from,
    to: open.to,
    fencingToken: unit.token,
    commitTimeUs: open.commitTimeUs,
  };
  const { snapshots } = open;
  if (sink.mode === 'merge') {
    const tables = await mergeTables(store, content, schemas, { topics, snapshots });
    const window: MergeWindow = { ...base, tables, sweeps: await sweepsOf(snapshots, schemas) };
    for (const table of window.tables) {
      const { states, counts, events } = table;
      table.states = () => whileOwned(states(), unit, gone);
      table.counts = () => whileOwned(counts(), unit, gone);
      table.events = () => whileOwned(events(), unit, gone);
    }
    return sink.mergeWindow(window);
  }
  const tables = await appendTables(store, content, schemas);
  const sweeps = await sweepsOf(snapshots, schemas);
  const window: AppendWindow = { ...base, tables: withSweeps(tables, content, { topics, sweeps, ...open }) };
  for (const table of window.tables) {
    const { events } = table;
    table.events = () => whileOwned(events(), unit, gone);
  }
  return sink.mode === 'send' ? sink.sendWindow(window) : sink.appendWindow(window);
}

/** Rows stop coming the moment the Unit is not ours, and so the sink's transaction fails. */
async function* whileOwned<T>(
  batches: AsyncIterable<T>,
  { unit }: OwnedUnit,
  gone: () => boolean,
): AsyncIterable<T> {
  for await (const batch of batches) {
    if (gone()) throw new TidemarkError('TM403', `this worker gave ${unit} up`);
    yield batch;
  }
}
