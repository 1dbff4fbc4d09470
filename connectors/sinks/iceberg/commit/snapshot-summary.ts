/** The counts in a snapshot's summary (Iceberg specification, "Optional Snapshot Summary Fields"). */
import { type DataFile, fileContent } from '../spec/data-file.ts';
import { partitionKey } from '../spec/partition-spec.ts';
import type { Snapshot, SnapshotOperation, SnapshotSummary } from '../spec/snapshot.ts';

const totals = [
  // [total, what adds to it, what takes from it]
  ['total-data-files', 'added-data-files', 'deleted-data-files'],
  ['total-delete-files', 'added-delete-files', 'removed-delete-files'],
  ['total-records', 'added-records', 'deleted-records'],
  ['total-files-size', 'added-files-size', 'removed-files-size'],
  ['total-position-deletes', 'added-position-deletes', 'removed-position-deletes'],
  ['total-equality-deletes', 'added-equality-deletes', 'removed-equality-deletes'],
] as const;

export class SummaryCounts {
  readonly #counts = new Map<string, number>();
  readonly #partitions = new Set<string>();

  add(specId: number, file: DataFile): void {
    this.#count(specId, file, 'added-files-size', ['added', 'added-data-files', 'added-records']);
  }

  remove(specId: number, file: DataFile): void {
    this.#count(specId, file, 'removed-files-size', ['removed', 'deleted-data-files', 'deleted-records']);
  }

  #count(
    specId: number,
    file: DataFile,
    size: string,
    [verb, files, records]: [string, string, string],
  ): void {
    this.#partitions.add(partitionKey(specId, file.partition));
    this.#increase(size, file.file_size_in_bytes);
    if (file.content === fileContent.data) {
      this.#increase(files, 1);
      this.#increase(records, file.record_count);
      return;
    }
    const kind = file.content === fileContent.positionDeletes ? 'position' : 'equality';
    this.#increase(`${verb}-delete-files`, 1);
    this.#increase(`${verb}-${kind}-delete-files`, 1);
    this.#increase(`${verb}-${kind}-deletes`, file.record_count);
  }

  #increase(name: string, by: number): void {
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + by);
  }

  /**
   * Counts that are zero are left out, as other writers do. A total is left out where the parent does not tell its own.
   * @param extra of the writer: what it wants to find again
   */
  summary(
    operation: SnapshotOperation,
    parent: Snapshot | null,
    extra: Readonly<Record<string, string>>,
  ): SnapshotSummary {
    const counts = [...this.#counts]
      .filter(([, count]) => count > 0)
      .map(([name, count]) => [name, String(count)]);
    const all = totals.flatMap(([total, added, removed]) => {
      const before = parent === null ? 0 : Number(parent.summary[total] ?? Number.NaN);
      const after = before + (this.#counts.get(added) ?? 0) - (this.#counts.get(removed) ?? 0);
      return after >= 0 ? [[total, String(after)]] : [];
    });
    return {
      ...extra,
      ...Object.fromEntries(counts),
      'changed-partition-count': String(this.#partitions.size),
      ...Object.fromEntries(all),
      operation,
    };
  }
}
