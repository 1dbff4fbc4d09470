/**
 * The retention service: round after round it marks rows that are old enough, waits until destinations are proven to have
 * them, and lets them go. One process works at a time; marks are in its memory, and whatever dies is marked again.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka } from 'kafkajs';
import type { Client, Pool } from 'pg';
import { tableName } from '../connector/shape.ts';
import type { SinkKind } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import { kafkaError } from '../platform/kafka.ts';
import { errorFields, type Logger } from '../platform/log.ts';
import type { ResolvedConfig, RetainConfig } from '../platform/resolved-config.ts';
import { archiveTable } from '../platform/retention-archive.ts';
import type { Progress } from '../publish/progress.ts';
import { peekProgress } from '../publish/progress-log.ts';
import { topicNames } from '../publish/record-format.ts';
import { SourceLedger } from '../publish/source-ledger.ts';
import { trackedTables } from '../replicate/catalogue.ts';
import { endConnection } from '../replicate/source.ts';
import { requireClock } from './clocks.ts';
import { deliveryMarks, floorTimeUs, type KeySchemas, proofOf, requireNamed } from './delivery-proof.ts';
import { dropEmptyPartitions } from './drop-partitions.ts';
import { evictBatch } from './evict-rows.ts';
import { type EvictableTable, evictableTable, requirePublished } from './evictable-table.ts';
import { askHolders } from './holders-word.ts';
import { readHolds } from './holds-in-force.ts';
import { countUnread, type MarkedRow, markRows, tenantsWithoutDays } from './mark-rows.ts';
import { OpenHolders } from './open-holders.ts';
import { Pace } from './pace.ts';
import { overrideFor, readOverrides, readPolicies, readPolicy } from './policies.ts';
import { positionBehind, requireWhole } from './published-progress.ts';
import { ReadBack } from './read-back.ts';
import { requireSource } from './require-source.ts';
import { emptyRound, recordRound, settleOthers, type TableRound } from './retention-ledger.ts';
import { recalledByTable } from './retention-status.ts';
import { connectRetention, retentionError, takeWork } from './session.ts';
import { requireSetUp } from './setup.ts';
import { WaitingMarks } from './waiting-marks.ts';

export interface RetentionOptions {
  config: ResolvedConfig & { retain: RetainConfig };
  sinkKinds: ReadonlyMap<string, SinkKind>;
  /** The control database. */
  pool: Pool;
  kafka: Kafka;
  registry: KeySchemas & { schemaById(id: number): Promise<string> };
  log: Logger;
  signal: AbortSignal;
  /** Told of every round of `run`. */
  onRound?: ((tables: readonly TableRound[]) => void) | undefined;
}

/** Marks whose destinations do not come are given up after so many of their cadences, for others' sake. */
const patienceCadences = 2;
const leastPatienceMs = 5 * 60_000;
/** Between looks at marks whose proof is soon there; each is twice as long as the one before. */
const firstLookMs = 100;

/** A table with its marks. */
interface MarkedTable {
  table: EvictableTable;
  /** Somebody has asked for rows of it that are not all there yet. */
  reading: boolean;
  /** Rows that are old enough, in partitions that nobody has read yet. */
  unread: number;
}

export class Retention {
  readonly #options: RetentionOptions;
  #client: Client | null = null;
  readonly #marks = new Map<string, WaitingMarks>();
  /** By table: tenants whose rows were marked in vain, until the others had their turn. */
  readonly #later = new Map<string, Set<string>>();
  /** By table, what was last logged of it. */
  readonly #told = new Map<string, string>();
  #pace: Pace | null = null;

  constructor(options: RetentionOptions) {
    this.#options = options;
  }

  /** Until it is stopped. Nothing that fails here ends anything but the round. */
  async run(): Promise<void> {
    const { config, log, signal, onRound } = this.#options;
    let told = '';
    let waitMs = config.retain.intervalMs;
    while (!signal.aborted) {
      try {
        const rounds = await this.round();
        if (rounds.some(({ evicted }) => evicted > 0)) waitMs = firstLookMs;
        else waitMs = Math.min(2 * waitMs, config.retain.intervalMs);
        onRound?.(rounds);
        told = '';
      } catch (caught) {
        const error = retentionError(caught);
        // Another process works, or a remedy is awaited: once is enough.
        if (error.message !== told)
          log[error.code === 'TM506' ? 'info' : 'warn']('rows stay in the source', errorFields(error));
        told = error.message;
        waitMs = config.retain.intervalMs;
      }
      await sleep(waitMs, undefined, { signal }).catch(() => {});
    }
  }

  async close(): Promise<void> {
    const client = this.#client;
    this.#client = null;
    this.#marks.clear();
    const pace = this.#pace;
    this.#pace = null;
    await pace?.close();
    if (client) await endConnection(client);
  }

  /**
   * Looks at every table with a policy once, and lets go what may go.
   * @throws TidemarkError TM506 while another process works; TM501, TM505, TM201, TM301, TM409
   */
  async round(): Promise<TableRound[]> {
    try {
      return await this.#round();
    } catch (error) {
      // With the session goes the lock, and whoever has it now marks for himself.
      await this.close();
      throw error;
    }
  }

  async #round(): Promise<TableRound[]> {
    const { config, pool, log, signal } = this.#options;
    const client = await this.#session();
    await requireSetUp(client);
    const sourceLedger = new SourceLedger(pool, config.source.id);
    const ledger = await sourceLedger.read();
    if (ledger?.state !== 'streaming') return [];
    await requireSource(client, ledger);
    await requireClock(client);
    await client.query('select tidemark_retention.ensure_archive_partitions()');
    const policies = (await readPolicies(client)).filter(({ enabled }) => enabled);
    const tracked = await trackedTables(client, config.source);
    const rounds: TableRound[] = [];
    const tables: MarkedTable[] = [];
    // Before it is asked what is being read: whatever is known by now was asked for by then.
    const partitions = (await sourceLedger.readPartitions()) ?? [];
    for (const policy of policies) {
      try {
        const table = await evictableTable(client, config, tracked, policy);
        await requirePublished(client, config.source.publication, [archiveTable, table]);
        const reading = await requireWhole(pool, config.source.id, ledger.epoch, table);
        await this.#mark(client, table, ledger.epoch, partitions);
        const unread = await countUnread(client, table, { retain: config.retain, partitions });
        tables.push({ table, reading, unread });
      } catch (error) {
        rounds.push(await this.#undone(client, tableName(policy), error));
      }
    }
    await this.#tellOfDays(
      client,
      tables.map(({ table }) => table),
    );
    const waiting = tables.some(({ table }) => {
      const { rows, position } = this.#marks.get(tableName(table))!;
      return rows.length > 0 && position === null;
    });
    const progress = waiting ? await this.#progress() : null;
    const holders = new OpenHolders({
      destinations: config.destinations,
      sinkKinds: this.#options.sinkKinds,
      sourceId: config.source.id,
      spillDirectory: config.deliver.spillDirectory,
      log,
    });
    try {
      for (const marked of tables) {
        const { table } = marked;
        if (signal.aborted) break;
        try {
          const round = await this.#evict(client, marked, progress, holders);
          rounds.push(round);
          if (table.policy.dropPartitions) await this.#dropPartitions(client, table, round);
        } catch (error) {
          this.#marks.delete(tableName(table));
          rounds.push(await this.#undone(client, tableName(table), error));
        }
      }
    } finally {
      await holders.close();
    }
    await settleOthers(pool, config.source.id, policies.map(tableName));
    const recalled = this.#options.onRound ? await recalledByTable(client) : null;
    for (const round of rounds) {
      if (recalled) round.recalled = recalled.get(round.table) ?? 0;
      if (!round.problem) this.#tell(round.table, null);
      await recordRound(pool, config.source.id, round);
      if (round.evicted > 0)
        log.info(`${round.evicted} rows of ${round.table} were evicted`, { staying: round.staying });
    }
    return rounds.sort((a, b) => (a.table < b.table ? -1 : 1));
  }

  /** What needs an operator is the table's; what may pass ends the round. */
  #refused(table: string, caught: unknown): TableRound {
    const error = retentionError(caught);
    if (error.retry !== 'operator') throw error;
    this.#tell(table, error);
    return emptyRound(table, error);
  }

  /** What came to nothing is the table's as long as the source answers: the others have their turn. */
  async #undone(client: Client, table: string, caught: unknown): Promise<TableRound> {
    const error = retentionError(caught);
    const answers =
      error.code === 'TM507' &&
      (await client.query('select 1').then(
        () => true,
        () => false,
      ));
    if (!answers) return this.#refused(table, error);
    this.#tell(table, error);
    return emptyRound(table, error);
  }

  /** Once, until something else is the matter with it. */
  #tell(about: string, error: TidemarkError | null): void {
    if (error && this.#told.get(about) !== error.message)
      this.#options.log.warn('rows stay in the source', errorFields(error));
    if (error) this.#told.set(about, error.message);
    else this.#told.delete(about);
  }

  async #session(): Promise<Client> {
    const { config } = this.#options;
    if (this.#client) return this.#client;
    const client = await connectRetention(config.retain.endpoint, config.source.id);
    if (!(await takeWork(client, config.source.id))) {
      await endConnection(client);
      throw new TidemarkError('TM506', `another process evicts rows of ${config.source.id}`);
    }
    this.#client = client;
    return client;
  }

  async #tellOfDays(client: Client, tables: readonly EvictableTable[]): Promise<void> {
    if (!tables.some(({ tenant }) => tenant !== null)) return;
    const count = await tenantsWithoutDays(client, this.#options.config.retain);
    const message = `${count} tenants have retention days of 0 or less`;
    this.#tell('', count === 0 ? null : new TidemarkError('TM504', message));
  }

  async #mark(
    client: Client,
    table: EvictableTable,
    epoch: number,
    partitions: readonly number[],
  ): Promise<void> {
    const name = tableName(table);
    const known = this.#marks.get(name);
    const same = known?.epoch === epoch;
    if (same && known.rows.length > 0 && !known.isSpent && !this.#isStale(table, known)) return;
    const later = this.#later.get(name) ?? new Set<string>();
    // A few that are blocked are marked with the others; where they are most of what is marked, others have their turn first.
    if (same && (!known.isSpent || 2 * known.rows.length > this.#options.config.retain.markRows))
      for (const { tenant } of known.rows) if (tenant !== null) later.add(tenant);
    const { config } = this.#options;
    const holds = await readHolds(client, table);
    const { retain } = config;
    const options = { retain, limit: retain.markRows, partitions, without: later };
    let marks = await markRows(client, table, holds, options);
    if (marks.rows.length === 0 && later.size > 0) {
      later.clear();
      marks = await markRows(client, table, holds, options);
    }
    this.#later.set(name, later);
    this.#marks.set(name, new WaitingMarks(marks, epoch, Date.now(), same ? known.blocked : undefined));
  }

  #isStale(table: EvictableTable, { waitedMs }: WaitingMarks): boolean {
    const { destinations, retain } = this.#options.config;
    const cadence = Math.max(
      0,
      ...destinations.map(({ cadenceMs, tableCadenceMs }) => tableCadenceMs[table.unit] ?? cadenceMs),
    );
    const patience = Math.max(leastPatienceMs, patienceCadences * cadence + 10 * retain.intervalMs);
    return waitedMs > patience;
  }

  /** What speaks against it is the round's problem; its rows go on. */
  async #dropPartitions(client: Client, table: EvictableTable, round: TableRound): Promise<void> {
    const { config, log } = this.#options;
    const about = `partitions of ${round.table}`;
    if (!(await readPolicy(client, table))?.open) return;
    try {
      const { names, awaited } = await dropEmptyPartitions(client, table, config.retain);
      for (const name of names)
        log.info(`partition ${name} was empty and is dropped`, { table: round.table });
      for (const name of awaited) log.info(`partition ${name} is empty, and is in use: it stays for now`);
      this.#tell(about, null);
    } catch (caught) {
      const error = retentionError(caught);
      this.#tell(about, error);
      if (error.retry !== 'operator') return;
      round.problem ??= { code: error.code, message: error.message, remedy: error.remedy };
    }
  }

  #paced(): Pace {
    const { config, log } = this.#options;
    this.#pace ??= new Pace(
      () => connectRetention(config.retain.endpoint, config.source.id, 'retain pace'),
      (error) => log.warn('how the source feels is not known: the pace stays', errorFields(error)),
    );
    return this.#pace;
  }

  async #progress(): Promise<Progress | null> {
    const { kafka, config } = this.#options;
    const { progress } = topicNames(config.kafka.topicPrefix);
    try {
      return await peekProgress(kafka, progress);
    } catch (error) {
      throw kafkaError(error, 'read the newest Progress');
    }
  }

  async #evict(
    client: Client,
    { table, reading, unread }: MarkedTable,
    progress: Progress | null,
    holders: OpenHolders,
  ): Promise<TableRound> {
    const { config, sinkKinds, pool, registry, log, signal } = this.#options;
    const { source, retain } = config;
    const name = tableName(table);
    const marks = this.#marks.get(name)!;
    const round = emptyRound(name);
    const stays = (reason: string, rows: number) => {
      if (rows > 0) round.staying[reason] = (round.staying[reason] ?? 0) + rows;
    };
    stays('partition not read yet', unread);
    if (marks.position === null && marks.rows.length > 0) {
      const behind = reading ? 'snapshot under way' : positionBehind(progress, marks, table);
      if (isPosition(behind)) marks.reach(behind, progress!, table);
      else for (const row of marks.rows) stays(marks.reasonOf(row, behind), 1);
    }
    const { position } = marks;
    if (position !== null) {
      const delivered = await deliveryMarks(table, { pool, config, sinkKinds, registry });
      requireNamed(table, delivered);
      const alarm = await askHolders(delivered, table.topic, marks, { holders, log });
      this.#tell(`${name} at its destinations`, alarm);
      if (alarm) round.problem = { code: alarm.code, message: alarm.message, remedy: alarm.remedy };
      round.floorUs = floorTimeUs(table.policy, delivered);
      const overrides = await readOverrides(client, table);
      const proof = (row: Parameters<typeof proofOf>[2]) => proofOf(table.policy, delivered, row, position);
      const ready = marks.rows.filter((row) => {
        const { enough, lacking } = proof(row);
        if (enough || overrideFor(overrides, row.tenant)) return true;
        const reason = lacking[0]?.reason ?? 'no destination takes it';
        if (reason !== 'not delivered yet') marks.blocked.set(row.key, reason);
        stays(marks.reasonOf(row, reason), 1);
        return false;
      });
      const relied = new Map(
        ready.flatMap((row) => proof(row).relied).map((holder) => [holder.destination, holder]),
      );
      const readBack =
        table.policy.readBack === 'none' || ready.length === 0
          ? null
          : await ReadBack.of(table, ready, [...relied.values()], this.#options);
      const context = { client, retain, publication: source.publication, position, proofOf: proof, readBack };
      const gone: MarkedRow[] = [];
      for (let from = 0; from < ready.length && !signal.aborted; ) {
        const most = await this.#paced().admit(table.policy, signal);
        if (signal.aborted) break;
        if (!(await readPolicy(client, table))?.open) {
          stays('not at this time of day', ready.length - from);
          break;
        }
        // Batches take their time; a destination that fell back meanwhile ends them.
        if (from > 0 && (await askHolders(delivered, table.topic, marks, { holders, log }))) break;
        const batch = ready.slice(from, from + most);
        const beganAt = performance.now();
        const outcome = await evictBatch(table, batch, context);
        this.#paced().went(batch.length, beganAt);
        from += batch.length;
        gone.push(...batch);
        round.evicted += outcome.evicted;
        stays('on hold', outcome.held);
        stays('changed since', outcome.changed);
        stays('not delivered yet', outcome.unproven);
        stays('referred to', outcome.referred);
      }
      marks.remove(gone);
    }
    round.marked = marks.rows.length;
    round.markedAtMs = marks.rows.length > 0 ? marks.markedAtMs : null;
    round.waitsFor = marks.rows.length > 0 ? position : null;
    return round;
  }
}

function isPosition(text: string): text is NonNullable<WaitingMarks['position']> {
  return text.includes('/');
}
