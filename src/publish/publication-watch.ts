/**
 * The publications while the reader runs: tables made since that `source.tables` selects join them, and what somebody
 * else added to them is put right. What somebody took out stops the reader: changes may be missing since.
 */
import type { Admin } from 'kafkajs';
import type pg from 'pg';
import type { ClientBase } from 'pg';
import { tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import { errorFields, type Logger } from '../platform/log.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { type CatalogueTable, trackedTables } from '../replicate/catalogue.ts';
import { ensurePublications } from '../replicate/publication.ts';
import { publishedTables } from '../replicate/publication-gap.ts';
import { connectSource, cutConnection, endConnection, sourceError } from '../replicate/source.ts';
import { lateColumns } from './late-columns.ts';
import type { MissedRows } from './missed-rows.ts';
import type { PartitionWatch } from './partition-watch.ts';
import { planWhole } from './publication-memory.ts';
import type { SourceLedger } from './source-ledger.ts';
import { ensureTopics } from './topics.ts';

export interface PublicationWatchOptions {
  config: ResolvedConfig;
  admin: Admin;
  ledger: SourceLedger;
  /** server_version_num. */
  version: number;
  log: Logger;
  /** Before tables join: their first changes may come at once. */
  announce(tables: readonly CatalogueTable[]): void;
  /** Asks for the rows that tables had before they joined. @returns the names of those that will be read */
  readBefore(tables: readonly CatalogueTable[]): Promise<string[]>;
  partitions: PartitionWatch;
  missed: MissedRows;
  /** The tables as they were made ready at the start. */
  tables: readonly CatalogueTable[];
}

/** Nothing that a look asks takes as long as this; a wire that fell silent does. */
const queryTimeoutMs = 30_000;
/** A look that waits for a lock ends by itself within this time. */
const closeMs = 3000;

export class PublicationWatch {
  /** Rejects when the publications lack something, or cannot be put right: what goes on being written would be lost. */
  readonly failed: Promise<never>;
  readonly #options: PublicationWatchOptions;
  #fail: (error: unknown) => void = () => {};
  /** Name to OID: one that was dropped and made anew joins too. */
  #known: Map<string, number>;
  #columns: Map<string, string>;
  #looking: Promise<void> | null = null;
  #client: pg.Client | null = null;
  #complaint = '';
  #closed = false;

  constructor(options: PublicationWatchOptions) {
    this.#options = options;
    this.#known = oidsOf(options.tables);
    this.#columns = columnsOf(options.tables);
    this.failed = new Promise((_, reject) => {
      this.#fail = reject;
    });
    this.failed.catch(() => {});
  }

  /** Call on a timer; a look that is under way is not doubled. */
  look(): void {
    if (this.#looking || this.#closed) return;
    this.#looking = this.#connected()
      .catch((thrown) => {
        const error = sourceError(thrown);
        // What may pass (a lock, the server) is tried again at the next look.
        if (error.retry === 'transient')
          this.#options.log.debug('the publications were not compared', errorFields(error));
        else if (!this.#closed) this.#fail(error);
      })
      .finally(() => {
        this.#looking = null;
      });
  }

  async close(): Promise<void> {
    this.#closed = true;
    const silent = setTimeout(() => cutConnection(this.#client), closeMs);
    await this.#looking;
    clearTimeout(silent);
  }

  /** On a connection of its own: it may wait for a lock, and the reader must not. */
  async #connected(): Promise<void> {
    const client = await connectSource(this.#options.config.source, 'tidemark/publications', queryTimeoutMs);
    this.#client = client;
    try {
      await client.query(`set lock_timeout = '2s'`);
      await this.#look(client);
    } finally {
      this.#client = null;
      await endConnection(client);
    }
  }

  /** @throws TidemarkError TM245; TM202 with the statements, where this role may not put the publications right */
  async #look(client: ClientBase): Promise<void> {
    const { config, admin, ledger, version, log } = this.#options;
    const planned = await planWhole({ client, ledger, version }, config.source, () => this.#tracked(client));
    if (!planned) return;
    const { tables, plans, published } = planned;
    const oids = oidsOf(tables);
    const joined = tables.filter((table) => this.#known.get(tableName(table)) !== table.oid);
    this.#options.announce(joined);
    const done = await ensurePublications(client, plans, version);
    const gone = [...this.#known.keys()].filter((name) => !oids.has(name));
    this.#known = oids;
    if (joined.length > 0) {
      await ensureTopics(admin, config.kafka, joined);
      const read = await this.#options.readBefore(joined);
      log.info('tables joined the stream', { tables: joined.map(tableName) });
      const left = joined.map(tableName).filter((name) => !read.includes(name));
      if (left.length > 0)
        log.warn('rows that these tables had before are not in the stream', { tables: left });
    }
    if (published) await this.#options.missed.columns(await lateColumns(client, published, plans));
    // Retention takes a table that is remembered for one whose rows were asked for.
    await ledger.rememberPublished(publishedTables(plans));
    await this.#options.partitions.look(client, tables, joined);
    if (gone.length > 0) log.warn('tables are gone from the source', { tables: gone });
    const columns = columnsOf(tables);
    const altered = [...columns].filter(([name, list]) => (this.#columns.get(name) ?? list) !== list);
    this.#columns = columns;
    if (done.length === 0 || joined.length > 0 || gone.length > 0) return;
    if (altered.length > 0) {
      log.warn(
        'the publications follow the tables’ new columns; where they list columns, what was written to a new one before is not in the stream',
        { tables: altered.map(([name]) => name), found: done },
      );
    } else {
      log.warn('the publications were altered and are put right', { found: done });
    }
  }

  /** A pattern that matches nothing any more is worth a word, not a stop: the rest of the stream is whole. */
  async #tracked(client: ClientBase): Promise<CatalogueTable[] | null> {
    const { config, log } = this.#options;
    try {
      const tables = await trackedTables(client, config.source);
      this.#complaint = '';
      return tables;
    } catch (error) {
      if (!(error instanceof TidemarkError) || error.code !== 'TM202') throw error;
      if (error.message !== this.#complaint) log.warn('the tracked tables changed', errorFields(error));
      this.#complaint = error.message;
      return null;
    }
  }
}

function oidsOf(tables: readonly CatalogueTable[]): Map<string, number> {
  return new Map(tables.map((table) => [tableName(table), table.oid]));
}

/** Every table's columns, and what keeps some of them out. */
function columnsOf(tables: readonly CatalogueTable[]): Map<string, string> {
  return new Map(
    tables.map((table) => [
      tableName(table),
      JSON.stringify([table.replicaIdentity, table.columns.map(({ name, personal }) => [name, personal])]),
    ]),
  );
}
