/**
 * Partitions that were attached: the rows that they bring along are in no stream, so they are asked for as a snapshot of
 * the root, of those partitions alone; one that was created in its place has none. What is known is remembered, so that
 * one attached while no reader ran is noticed.
 */
import type { ClientBase } from 'pg';
import { tableName } from '../connector/shape.ts';
import type { Logger } from '../platform/log.ts';
import type { SourceConfig } from '../platform/resolved-config.ts';
import type { CatalogueTable } from '../replicate/catalogue.ts';
import { type LeafPartition, leafPartitions } from '../replicate/partitions.ts';
import { scanReference } from '../replicate/snapshot/table-scan.ts';
import { valueStatements } from '../replicate/value-session.ts';
import type { AttachedPartitions } from './attached-partitions.ts';
import type { MissedRows } from './missed-rows.ts';
import { hasKey, snapshotMode } from './snapshot/initial-snapshots.ts';
import type { SourceLedger } from './source-ledger.ts';

export interface PartitionWatchOptions {
  source: SourceConfig;
  ledger: SourceLedger;
  log: Logger;
  attached: AttachedPartitions;
  topicOf(table: CatalogueTable): string;
  /** Asks for the rows that fulfil the condition. @returns false where a snapshot of the table is open */
  readRows(table: CatalogueTable, condition: string): Promise<boolean>;
  missed: MissedRows;
}

export class PartitionWatch {
  readonly #options: PartitionWatchOptions;
  #roots = new Map<number, string>();
  #known = new Set<number>();

  constructor(options: PartitionWatchOptions) {
    this.#options = options;
  }

  /** Before anything is streamed. @param anew nothing was streamed in this epoch: its snapshots read what there is now */
  async begin(client: ClientBase, tables: readonly CatalogueTable[], anew: boolean): Promise<void> {
    const leaves = await this.#leaves(client, tables);
    const remembered = anew ? null : await this.#options.ledger.readPartitions();
    this.#known = new Set(remembered ?? leaves.map(({ oid }) => oid));
    this.#follow(tables);
  }

  /** Once the epoch has a row in the ledger. */
  remember(): Promise<void> {
    return this.#options.ledger.rememberPartitions([...this.#known]);
  }

  /** @param joined tables that are read as a whole */
  async look(
    client: ClientBase,
    tables: readonly CatalogueTable[],
    joined: readonly CatalogueTable[],
  ): Promise<void> {
    const { log, attached } = this.#options;
    const leaves = await this.#leaves(client, tables);
    const present = new Set(leaves.map(({ oid }) => oid));
    const gone = [...this.#known].filter((oid) => !present.has(oid));
    const fresh = leaves.filter(({ oid }) => !this.#known.has(oid));
    for (const oid of gone) this.#known.delete(oid);
    for (const table of tables) {
      const own = fresh.filter(({ root }) => root === table.oid);
      if (own.length > 0) await this.#take(client, table, own, joined.includes(table));
    }
    this.#follow(tables);
    attached.settled(gone);
    if (gone.length > 0)
      log.warn('partitions were detached or dropped: their rows stay in destinations', {
        partitions: gone.length,
      });
    if (gone.length > 0 || fresh.length > 0) await this.remember();
  }

  /** Partitions stay unknown, and are looked at again, while another snapshot of the table is open. */
  async #take(
    client: ClientBase,
    table: CatalogueTable,
    partitions: readonly LeafPartition[],
    joined: boolean,
  ): Promise<void> {
    const { source, log, attached, readRows, missed } = this.#options;
    const filled: LeafPartition[] = [];
    for (const partition of partitions) {
      const needless = joined || partition.native;
      if (!needless && (await this.#hasRows(client, table, partition))) filled.push(partition);
      else {
        this.#known.add(partition.oid);
        attached.settled([partition.oid]);
      }
    }
    if (filled.length === 0) return;
    for (const { oid } of filled) this.#known.add(oid);
    this.#follow([table]);
    const names = filled.map(({ name }) => name);
    if (!hasKey(table) || snapshotMode(source, table) === 'never') {
      const what = `rows that partitions of ${tableName(table)} had before they were attached are not in the stream: ${names.join(', ')}`;
      await missed.rows(table, conditionOf(filled), what);
      attached.settled(filled.map(({ oid }) => oid));
    } else if (await readRows(table, conditionOf(filled))) {
      log.info('partitions joined with rows: a snapshot reads them', {
        table: tableName(table),
        partitions: names,
      });
    } else for (const { oid } of filled) this.#known.delete(oid);
  }

  /** Through the root: nobody needs a grant on partitions. */
  async #hasRows(client: ClientBase, table: CatalogueTable, partition: LeafPartition): Promise<boolean> {
    const { rows } = await client.query(
      `select from ${scanReference({ table })} where ${conditionOf([partition])} limit 1`,
    );
    return rows.length > 0;
  }

  #follow(tables: readonly CatalogueTable[]): void {
    const { attached, topicOf } = this.#options;
    for (const table of tables) if (table.kind === 'partitioned') this.#roots.set(table.oid, topicOf(table));
    attached.follow(this.#roots, this.#known);
  }

  /** Bounds are printed as the snapshot's session reads them. */
  async #leaves(client: ClientBase, tables: readonly CatalogueTable[]): Promise<LeafPartition[]> {
    await client.query(valueStatements.join('; '));
    return leafPartitions(client, tables);
  }
}

/** The bounds tell Postgres which partitions it need not look into; they alone would take in what came since. */
function conditionOf(partitions: readonly LeafPartition[]): string {
  return partitions
    .map(({ oid, constraint }) => `(tableoid = ${oid}::oid${constraint ? ` and (${constraint})` : ''})`)
    .join(' or ');
}
