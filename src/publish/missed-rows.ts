/**
 * What no stream has of a table, and nobody asked to be read: said in the log, by `tidemark snapshot status` and `tidemark
 * status`, and to retention, which evicts nothing of the table until a snapshot has read it.
 */
import { tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { Logger } from '../platform/log.ts';
import type { CatalogueTable } from '../replicate/catalogue.ts';
import type { LateColumns } from './late-columns.ts';
import { hasKey } from './snapshot/initial-snapshots.ts';
import type { SnapshotRequests } from './snapshot/snapshot-requests.ts';

export class MissedRows {
  readonly #requests: SnapshotRequests;
  readonly #epoch: () => number;
  readonly #log: Logger;

  constructor(requests: SnapshotRequests, epoch: () => number, log: Logger) {
    this.#requests = requests;
    this.#epoch = epoch;
    this.#log = log;
  }

  /** @param condition null: all rows */
  async rows(table: CatalogueTable, condition: string | null, what: string): Promise<void> {
    const name = tableName(table);
    this.#log.warn(what, { table: name, remedy: `tidemark snapshot start ${name}` });
    // Without a key a table is read whole or not at all, and nothing of it is ever evicted.
    if (!hasKey(table)) return;
    await this.#requests.missed(this.#epoch(), name, condition, new TidemarkError('TM226', what));
  }

  async columns(late: readonly LateColumns[]): Promise<void> {
    for (const { table, columns } of late)
      await this.rows(
        table,
        null,
        `what rows of ${tableName(table)} had before in ${columns.join(', ')} is not in the stream`,
      );
  }
}
