/**
 * What a destination holds, in the properties of a table without rows. Every Window adds a snapshot to it, so that a
 * commit can require the one that it was prepared on: an owner that was replaced is refused by the catalog.
 */
import { TidemarkError } from '../../../../src/connector/failure.ts';
import { beforeEverything } from '../../../../src/connector/position.ts';
import type { Held, Receipt } from '../../../../src/connector/sink.ts';
import { CommitConflict } from '../catalog/failures.ts';
import { settleCommit } from '../catalog/settle-commit.ts';
import { prepareCommit } from '../commit/prepare-commit.ts';
import { commitOf, type PreparedTable } from '../commit/table-commit.ts';
import type { FileStore } from '../file-store.ts';
import type { Lake, OpenTable } from '../lake.ts';
import { progressIdentifier } from '../names.ts';
import type { Snapshot } from '../spec/snapshot.ts';
import type { TableMetadata } from '../spec/table-metadata.ts';
import type { TableUpdate } from '../spec/updates.ts';
import {
  creationProperties,
  type Mark,
  markProperties,
  type Owner,
  ownerProperties,
  propertyNames,
  readMark,
  type WindowHead,
} from './properties.ts';

/** Of the table's history; readers need none of it. */
const snapshotsKept = 5;
/** Beyond those, before they go together. */
const snapshotsWaiting = 20;
const takeOverTries = 10;

export class ProgressTable {
  readonly #lake: Lake;
  readonly #owner: Owner;
  readonly #namespace: string;

  constructor(lake: Lake, owner: Owner, namespace: string) {
    this.#lake = lake;
    this.#owner = owner;
    this.#namespace = namespace;
  }

  load(): Promise<OpenTable | null> {
    return this.#lake.load(progressIdentifier(this.#namespace, this.#owner));
  }

  mark({ metadata }: OpenTable): Mark | null {
    return readMark(metadata.properties, this.#owner, 'the progress table');
  }

  async held(): Promise<Held | null> {
    const table = await this.load();
    const mark = table && this.mark(table);
    if (!mark) return null;
    return { position: mark.position, sequence: mark.sequence, fencingToken: mark.token };
  }

  ensure(): Promise<OpenTable> {
    return this.#lake.ensure(progressIdentifier(this.#namespace, this.#owner), () => ({
      schema: {
        type: 'struct',
        'schema-id': 0,
        fields: [{ id: 1, name: 'position', required: false, type: 'string' }],
      },
      properties: { ...ownerProperties(this.#owner), ...creationProperties },
    }));
  }

  /** Raises the token, so that what an earlier owner prepared is refused. @throws TidemarkError TM403 */
  async takeOver(token: bigint): Promise<OpenTable> {
    for (let tries = 1; ; tries += 1) {
      const table = await this.ensure();
      const seen = tokenOf(table);
      checkToken(table, token, this.#owner);
      if (seen === token) return table;
      try {
        await fence(this.#lake, table, {
          ...ownerProperties(this.#owner),
          [propertyNames.token]: String(token),
        });
      } catch (error) {
        if (!(error instanceof CommitConflict) || tries === takeOverTries) throw error;
      }
    }
  }

  /** The Window's part of the commit. */
  async prepare(
    files: Pick<FileStore, 'get' | 'put'>,
    table: OpenTable,
    window: WindowHead,
    attempt: string,
    receiptOf: (commitId: string) => Receipt,
  ): Promise<PreparedTable & { receipt: Receipt }> {
    const prepared = await prepareCommit(files, table.metadata, { added: [], deletes: [], removed: [] });
    const receipt = receiptOf(String(prepared.snapshotId));
    return {
      table,
      live: await this.#lake.live(table),
      prepared,
      definition: [],
      properties: {
        ...markProperties(window, attempt),
        [propertyNames.receipt]: JSON.stringify(receipt),
      },
      summary: { [propertyNames.position]: window.to, [propertyNames.sequence]: String(window.sequence) },
      further: forgetSnapshots,
      receipt,
    };
  }
}

function oldSnapshots({ snapshots }: TableMetadata): Snapshot[] {
  const old = Math.max(0, snapshots.length - snapshotsKept);
  return old < snapshotsWaiting ? [] : snapshots.slice(0, old);
}

function forgetSnapshots(metadata: TableMetadata): TableUpdate[] {
  const old = oldSnapshots(metadata);
  return old.length === 0
    ? []
    : [{ action: 'remove-snapshots', 'snapshot-ids': old.map((each) => each['snapshot-id']) }];
}

/** After a commit: removes the lists of snapshots that it forgot. The table is as it was before. */
export async function removeForgotten({ metadata, store }: OpenTable): Promise<void> {
  const lists = oldSnapshots(metadata).map((each) => each['manifest-list']);
  if (lists.length > 0) await store.delete(lists);
}

export function tokenOf({ metadata }: OpenTable): bigint {
  return BigInt(metadata.properties[propertyNames.token] ?? 0);
}

/** @throws TidemarkError TM403 for an owner that was replaced */
export function checkToken(table: OpenTable, token: bigint, { destination }: Owner): void {
  const seen = tokenOf(table);
  if (seen <= token) return;
  throw new TidemarkError(
    'TM403',
    `${destination}: the destination has seen token ${seen}, this worker has ${token}`,
  );
}

/** A snapshot that changes nothing but the table’s state: what was prepared on the one before is refused. */
export async function fence(lake: Lake, table: OpenTable, properties: Record<string, string>): Promise<void> {
  const live = await lake.live(table);
  const prepared = await prepareCommit(table.store, table.metadata, { added: [], deletes: [], removed: [] });
  const { commit } = await commitOf(table.store, {
    table,
    live,
    prepared,
    definition: [],
    properties,
    summary: {},
  });
  await settleCommit(lake.catalog, [commit]);
}

/**
 * Null where the Window is to be written; the Receipt where the destination holds it. A Window older than the last one
 * answers the last one's Receipt, whose Position covers it.
 * @throws TidemarkError TM404 where the Window does not follow what is held
 */
export function decideWindow(window: WindowHead, mark: Mark | null): Receipt | null {
  const sequence = mark?.sequence ?? 0;
  if (mark?.receipt && window.sequence <= sequence && window.to <= mark.position)
    return { ...mark.receipt, alreadyHeld: true };
  if (window.sequence === sequence + 1 && (mark?.position ?? beforeEverything) <= window.from) return null;
  const holds = mark ? `Window ${sequence} up to ${mark.position}` : 'nothing';
  throw new TidemarkError(
    'TM404',
    `${window.destination}/${window.unit}: Window ${window.sequence} starts at ${window.from}, but the destination holds ${holds}`,
    {
      remedy:
        'The destination was restored, emptied or changed by hand, or the ledger was. Restore the one that is behind, or rebuild the destination.',
    },
  );
}
