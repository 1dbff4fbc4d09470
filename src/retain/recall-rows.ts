/**
 * Recall: evicted rows are read from destinations that their Tombstones name, each in one pass however many rows, compared
 * with the Tombstones' hashes, and inserted again: to destinations they are ordinary rows from then on. A Tombstone says
 * that its row came back, so whatever dies goes on where it was when it is run again.
 */
import type { Client } from 'pg';
import { type TableId, type TableShape, tableName, unitName } from '../connector/shape.ts';
import type { Row } from '../connector/sink.ts';
import { asTidemarkError, TidemarkError } from '../platform/errors.ts';
import { shapeOfSchema } from '../publish/avro-schema.ts';
import { topicNames } from '../publish/record-format.ts';
import { SourceLedger } from '../publish/source-ledger.ts';
import { quoted } from '../replicate/catalogue.ts';
import { type InsertContext, insertRecalled, type ReturningRow, thereAgain } from './insert-recalled.ts';
import {
  countOpen,
  coveredColumns,
  findOpen,
  type Holder,
  holdersOf,
  type OpenTombstone,
  openKeys,
  type Selection,
  stateOfKeys,
} from './open-tombstones.ts';
import { type HolderOptions, heldRows } from './read-holder.ts';
import { type Refusal, Refusals } from './recall-refusals.ts';
import { requireSource } from './require-source.ts';
import { RowColumns } from './row-columns.ts';
import { connectRetention, retentionError } from './session.ts';
import { keysInTable } from './source-table.ts';

/** Of one transaction. */
const batchRows = 1000;
const batchCharacters = 4 << 20;
/** Up to so many keys are looked for in memory; of more, each batch of the pass asks the source which of its rows are wanted. */
const keysInMemory = 100_000;
const keysPerQuestion = 2000;

export interface RecallWish {
  selection: Selection;
  reason: string;
  /** Where to read from; null: wherever Tombstones say. */
  destination: string | null;
}

export interface RecallSummary {
  table: string;
  /** Rows that could be recalled when it began. */
  selected: number;
  recalled: number;
  /** By destination. */
  from: Record<string, number>;
  /** Keys that were named, or rows that another process took meanwhile. */
  already: number;
  /** Rows that stay at destinations, by reason. */
  refused: Record<string, number>;
  /** The first of them. */
  refusals: Refusal[];
  /** Rows that some destination had otherwise, and that came from another one; the first of them. */
  altered: Pick<Refusal, 'key' | 'destination' | 'differing'>[];
  /** Columns that nobody has any more: they came back as their defaults; and those that the source has no more. */
  forfeited: string[];
  dropped: string[];
  /** Destinations that could not be read, and why. */
  unread: { destination: string; code: string; message: string }[];
  /** It was stopped; what was selected and is neither recalled nor refused was not looked at. */
  interrupted: boolean;
}

export type RecallProgress = (done: number, of: number, destination: string) => void;

/** @throws TidemarkError TM101 for what is not there, TM503, TM505, TM507 */
export async function recallRows(
  client: Client,
  wish: RecallWish,
  options: HolderOptions,
  progress: RecallProgress = () => {},
): Promise<RecallSummary> {
  const { selection } = wish;
  const { retain, source } = options.config;
  const ledger = await new SourceLedger(options.pool, source.id).read();
  if (ledger) await requireSource(client, ledger);
  await requireInsert(client, selection.table);
  const writer = await connectRetention(retain.endpoint, source.id, 'recall');
  try {
    const run = new RecallRun({ client, writer, wish, options, progress });
    await run.start();
    for (const holder of await run.holders()) {
      if (options.signal.aborted || run.isDone) break;
      await run.pass(holder);
    }
    return await run.end();
  } finally {
    await writer.end().catch(() => {});
  }
}

/** @throws TidemarkError TM505 */
async function requireInsert(client: Client, table: TableId): Promise<void> {
  const { rows } = await client.query<{ may: boolean }>(`select has_table_privilege($1, 'insert') as may`, [
    quoted(table),
  ]);
  if (rows[0]!.may) return;
  throw new TidemarkError('TM505', `the role of retain.url may not insert into ${tableName(table)}`, {
    remedy: `grant insert on ${quoted(table)} to <the role of retain.url>;`,
  });
}

interface RecallRunOptions {
  /** For questions; the writer's transactions go on meanwhile. */
  client: Client;
  writer: Client;
  wish: RecallWish;
  options: HolderOptions;
  progress: RecallProgress;
}

class RecallRun {
  readonly #client: Client;
  readonly #writer: Client;
  readonly #wish: RecallWish;
  readonly #options: HolderOptions;
  readonly #progress: RecallProgress;
  readonly #summary: RecallSummary;
  readonly #refusals = new Refusals();
  readonly #forfeited = new Set<string>();
  readonly #dropped = new Set<string>();
  #columns!: RowColumns;
  #topic!: string;
  /** The destination was asked for columns that the table does not have any more. */
  #widened = false;
  /** The batch that goes in while the next one is read and compared. */
  #inserting: Promise<void> = Promise.resolve();

  constructor({ client, writer, wish, options, progress }: RecallRunOptions) {
    this.#client = client;
    this.#writer = writer;
    this.#wish = wish;
    this.#options = options;
    this.#progress = progress;
    this.#summary = {
      table: tableName(wish.selection.table),
      selected: 0,
      recalled: 0,
      from: {},
      already: 0,
      refused: {},
      refusals: [],
      altered: [],
      forfeited: [],
      dropped: [],
      unread: [],
      interrupted: false,
    };
  }

  async start(): Promise<void> {
    const { selection } = this.#wish;
    const { registry, config } = this.#options;
    this.#topic = topicNames(config.kafka.topicPrefix).table(selection.table);
    const versions = await registry.versions(`${this.#topic}-value`);
    this.#columns = new RowColumns(
      versions.map(({ schema }) => shapeOfSchema(schema)),
      selection.table,
    );
    if (selection.keys) {
      const { unknown, already, lost } = await stateOfKeys(this.#client, selection);
      this.#summary.already = already.length;
      for (const key of unknown)
        this.#refusals.add({ key, reason: 'it has no Tombstone', destination: null });
      for (const key of lost)
        this.#refusals.add({
          key,
          reason: 'its salt was erased, so nobody can tell it any more',
          destination: null,
        });
    }
    this.#summary.selected = await countOpen(this.#client, selection);
  }

  get isDone(): boolean {
    return this.#summary.recalled >= this.#summary.selected;
  }

  async holders(): Promise<Holder[]> {
    const { selection, destination } = this.#wish;
    if (this.#summary.selected === 0) return [];
    const named = await holdersOf(this.#client, selection);
    if (destination === null) return named;
    const found = named.find((holder) => holder.destination === destination);
    if (found) return [found];
    // It got the rows later, or they went by an override: their hashes tell.
    const instance = this.#options.config.destinations.find(({ name }) => name === destination);
    const unit = this.#options.sinkKinds.get(instance?.kind ?? '')?.unit;
    return [{ destination, unit: unit === 'destination' ? '*' : unitName(selection.table), rows: 0 }];
  }

  async pass(holder: Holder): Promise<void> {
    const { selection } = this.#wish;
    const wanted = await this.#wanted();
    const covered = await coveredColumns(this.#client, selection);
    try {
      this.#widened = false;
      try {
        await this.#read(holder, wanted, covered);
      } catch (error) {
        await this.#inserting;
        // A destination that dropped columns with the source cannot be asked for them: without them it can.
        if (!this.#widened || !(error instanceof HolderFailure)) throw error;
        await this.#read(holder, wanted, new Set());
      }
    } catch (caught) {
      if (!(caught instanceof HolderFailure)) throw caught;
      await this.#inserting;
      const { code, message } = asTidemarkError(caught.cause);
      this.#summary.unread.push({ destination: holder.destination, code, message });
    }
  }

  /** Null: so many that each batch of the pass asks the source. Where keys were named, no other row is to come back. */
  async #wanted(): Promise<Set<string> | null> {
    const { selection } = this.#wish;
    const { selected, recalled } = this.#summary;
    if (!selection.keys && selected - recalled > keysInMemory) return null;
    const most = selection.keys?.length ?? keysInMemory;
    return new Set(await openKeys(this.#client, selection, most));
  }

  async #read(
    holder: Holder,
    wanted: ReadonlySet<string> | null,
    covered: ReadonlySet<string>,
  ): Promise<void> {
    const table = { ...this.#wish.selection.table, topic: this.#topic };
    const pending: ReturningRow[] = [];
    let characters = 0;
    const batches = heldRows(this.#options, holder, table, (shape) => {
      const wide = this.#columns.widen(shape, covered);
      this.#widened = wide.columns.length > shape.columns.length;
      return wide;
    });
    for (;;) {
      const { value, done } = await batches.next().catch((cause: unknown) => {
        throw new HolderFailure(cause);
      });
      if (done) break;
      const { shape, rows } = value;
      const byKey = new Map(
        rows.flatMap((row) => {
          const key = JSON.stringify(shape.keyColumns.map((column) => row[column] ?? null));
          return wanted && !wanted.has(key) ? [] : [[key, row] as const];
        }),
      );
      const found = [...byKey.keys()];
      for (let from = 0; from < found.length; from += keysPerQuestion) {
        const asked = found.slice(from, from + keysPerQuestion);
        const differing: [string, OpenTombstone][] = [];
        for (const [key, tombstone] of await this.#tombstones(asked, holder)) {
          const row = byKey.get(key)!;
          const verified = this.#columns.verify(shape, row, tombstone);
          if (!verified) {
            differing.push([key, tombstone]);
            continue;
          }
          const other = this.#refusals.differing(key, shape, row);
          if (other) this.#summary.altered.push({ key, ...other });
          pending.push({ tombstone, row: verified });
          for (const cell of verified.cells.values()) characters += cell?.length ?? 0;
          if (pending.length < batchRows && characters < batchCharacters) continue;
          await this.#insertNext(pending.splice(0), holder);
          characters = 0;
        }
        await this.#refuse(differing, holder, shape, byKey);
      }
      if (this.#options.signal.aborted) break;
    }
    await batches.return(undefined);
    await this.#insertNext(pending, holder);
    await this.#inserting;
  }

  /** Waits for the batch before it alone. */
  async #insertNext(rows: readonly ReturningRow[], holder: Holder): Promise<void> {
    await this.#inserting;
    this.#inserting = this.#insert(rows, holder);
    // Whoever waits for it is told.
    this.#inserting.catch(() => {});
  }

  async #refuse(
    differing: readonly [string, OpenTombstone][],
    { destination }: Holder,
    shape: TableShape,
    rows: ReadonlyMap<string, Row>,
  ): Promise<void> {
    if (differing.length === 0) return;
    const { table } = this.#wish.selection;
    const keys = differing.map(([key]) => key);
    const again = await keysInTable(this.#client, table, keys).catch((error: unknown) => {
      throw retentionError(error);
    });
    for (const [key, tombstone] of differing) {
      if (again.has(key)) this.#refusals.add({ key, reason: thereAgain, destination });
      else {
        const columns = this.#columns.differ(shape, tombstone);
        this.#refusals.addDiffering(key, destination, columns, shape, rows.get(key)!);
      }
    }
  }

  #tombstones(keys: readonly string[], { destination }: Holder) {
    // Where somebody says from where, what Tombstones name does not count.
    const named = this.#wish.destination === null ? destination : null;
    return findOpen(this.#client, this.#wish.selection, keys, named);
  }

  async #insert(rows: readonly ReturningRow[], { destination }: Holder): Promise<void> {
    if (rows.length === 0) return;
    const { selection, reason } = this.#wish;
    const context: InsertContext = {
      client: this.#writer,
      table: selection.table,
      publication: this.#options.config.source.publication,
      reason,
    };
    const { recalled, already, refused } = await insertRecalled(rows, context);
    const summary = this.#summary;
    summary.recalled += recalled.length;
    summary.already += already;
    summary.from[destination] = (summary.from[destination] ?? 0) + recalled.length;
    for (const { key, reason } of refused) this.#refusals.add({ key, reason, destination });
    for (const { tombstone, row } of recalled) {
      this.#refusals.remove(tombstone.key);
      for (const name of tombstone.forfeited) this.#forfeited.add(name);
      for (const name of row.dropped) this.#dropped.add(name);
    }
    this.#progress(summary.recalled, summary.selected, destination);
  }

  async end(): Promise<RecallSummary> {
    const { selection } = this.#wish;
    const summary = this.#summary;
    summary.interrupted = this.#options.signal.aborted;
    const left = summary.interrupted
      ? 0
      : (await countOpen(this.#client, selection)) - this.#refusals.atDestinations;
    if (left > 0) {
      const unread = summary.unread.length > 0 ? ', and some could not be read' : '';
      const reason = `no destination that was asked hands it back${unread}`;
      const keys = await openKeys(this.#client, selection, keysInMemory);
      this.#refusals.addUntold(keys, left, reason);
    }
    Object.assign(summary, this.#refusals.summary(), {
      forfeited: [...this.#forfeited].sort(),
      dropped: [...this.#dropped].sort(),
    });
    return summary;
  }
}

/** What a destination threw, and not what the source did. */
class HolderFailure extends Error {
  constructor(cause: unknown) {
    super('a destination could not be read', { cause });
  }
}
