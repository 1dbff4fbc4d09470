/** The end of a Window of either mode: tables that only got files more, and the commit with what the destination then holds. */
import type { Receipt } from '../../../src/connector/sink.ts';
import { prepareCommit } from './commit/prepare-commit.ts';
import type { PreparedTable } from './commit/table-commit.ts';
import { commitWindow, type WindowTable } from './commit-window.ts';
import type { WrittenFile } from './files/write-data-files.ts';
import type { OpenTable } from './lake.ts';
import { type Attempt, PendingFiles } from './progress/attempt.ts';
import { removeForgotten } from './progress/progress-table.ts';
import { markProperties, propertyNames, type WindowHead } from './progress/properties.ts';
import type { Surroundings } from './running-table.ts';
import { applyUpdates } from './spec/apply-updates.ts';
import type { TableUpdate } from './spec/updates.ts';

/** Of the snapshots of a Window. */
export function windowSummary({ to, sequence }: WindowHead): Record<string, string> {
  return { [propertyNames.position]: to, [propertyNames.sequence]: String(sequence) };
}

export interface Appended {
  files: readonly WrittenFile[];
  /** Of the schema. */
  definition?: readonly TableUpdate[];
  /** Besides those that say which Window the table holds. */
  properties?: Readonly<Record<string, string>>;
}

export async function prepareAppend(
  { lake }: Pick<Surroundings, 'lake'>,
  window: WindowHead,
  attempt: Attempt,
  table: OpenTable,
  { files: written, definition = [], properties = {} }: Appended,
): Promise<WindowTable> {
  const metadata = applyUpdates(table.metadata, definition, Date.now());
  const specId = metadata['default-spec-id'];
  const files = new PendingFiles(table.store);
  files.addLocal(written);
  const added = written.map(({ file }) => ({ file, specId }));
  const prepared = await prepareCommit(files, metadata, { added, deletes: [], removed: [] });
  attempt.add(table, prepared.snapshotId, files);
  const appended: PreparedTable = {
    table,
    live: await lake.live(table),
    prepared,
    // Whatever others do to it: an append stays one.
    replan: async () => prepared,
    definition,
    properties: { ...markProperties(window, attempt.id), ...properties },
    summary: windowSummary(window),
  };
  return { table: appended, files };
}

export type Counted = Pick<Receipt, 'rows' | 'contentHash'>;

export async function finishWindow(
  { context, lake, progressTable }: Surroundings,
  window: WindowHead,
  progress: OpenTable,
  attempt: Attempt,
  tables: readonly WindowTable[],
  counted: Counted,
): Promise<Receipt> {
  const files = new PendingFiles(progress.store);
  const { receipt, ...own } = await progressTable.prepare(
    files,
    progress,
    window,
    attempt.id,
    (commitId): Receipt => ({
      position: window.to,
      ...counted,
      bytes: Math.max(1, attempt.bytes),
      commitId,
      alreadyHeld: false,
    }),
  );
  attempt.add(progress, own.prepared.snapshotId, files);
  await commitWindow(lake, window, attempt, [...tables, { table: own, files }], context.failpoint);
  await removeForgotten(progress).catch(() => undefined);
  return receipt;
}
