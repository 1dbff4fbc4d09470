/** Commits of the Iceberg sink: what a snapshot inherits, retries on a newer base, removals, merged manifests. */
import { afterEach, describe, expect, it } from 'vitest';
import { prepareCommit } from '../../connectors/sinks/iceberg/commit/prepare-commit.ts';
import { rebaseCommit } from '../../connectors/sinks/iceberg/commit/rebase-commit.ts';
import { entriesOf, manifestsOf } from '../../connectors/sinks/iceberg/plan/table-reader.ts';
import { writeAvroFile } from '../../connectors/sinks/iceberg/spec/avro-file.ts';
import { currentSnapshot } from '../../connectors/sinks/iceberg/spec/table-metadata.ts';
import { dumpManifests } from '../iceberg/dump-manifests.ts';
import { LocalTable, type LocalTableOptions } from '../iceberg/local-table.ts';
import { scanRows } from '../iceberg/scan-rows.ts';

const options: LocalTableOptions = {
  fields: [
    { id: 1, name: 'id', required: true, type: 'long' },
    { id: 2, name: 'part', required: false, type: 'string' },
  ],
  key: ['id'],
};
const partitioned: LocalTableOptions = {
  ...options,
  partitionBy: [{ 'source-id': 2, 'field-id': 1000, name: 'part', transform: 'identity' }],
};

let table: LocalTable;
afterEach(() => table.remove());

const rows = (from: number, to: number, part = "'a'") =>
  `(SELECT range AS id, ${part} AS part FROM range(${from}, ${to}))`;

async function ids(): Promise<number[]> {
  return (await scanRows(table, ['id'])).map(({ cells }) => Number(cells[0])).sort((a, b) => a - b);
}

async function paths(): Promise<string[]> {
  const files = [...(await table.live()).dataFiles()].sort((a, b) => a.sequence - b.sequence);
  return files.map(({ path }) => path);
}

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);

describe('a commit', () => {
  it('adds a manifest and leaves those before it', async () => {
    table = await LocalTable.create(options);
    await table.append(rows(0, 5));
    const [first] = await dumpManifests(table.store, table.metadata);
    await table.append(rows(5, 7));
    const manifests = await dumpManifests(table.store, table.metadata);
    expect(manifests.map(({ sequence, counts }) => [sequence, counts])).toEqual([
      [2, [1, 0, 0, 2, 0, 0]],
      [1, [1, 0, 0, 5, 0, 0]],
    ]);
    expect(manifests[1]).toEqual(first);
    const snapshot = currentSnapshot(table.metadata)!;
    expect(snapshot['sequence-number']).toBe(2);
    expect(snapshot['parent-snapshot-id']).toBe(table.metadata.snapshots[0]!['snapshot-id']);
    expect(snapshot.summary).toMatchObject({
      operation: 'append',
      'added-data-files': '1',
      'added-records': '2',
      'total-records': '7',
      'total-data-files': '2',
      'total-delete-files': '0',
    });
    expect(await ids()).toEqual(range(0, 7));
  });

  it('deletes rows of its own files', async () => {
    table = await LocalTable.create(options);
    const written = await table.write(rows(0, 4));
    const path = written[0]!.file.file_path;
    const deletes = await table.writeDeletesOf([{ path, specId: 0, partition: [], fields: [] }], [[path, 2]]);
    await table.commit(written, deletes);
    expect(await ids()).toEqual([0, 1, 3]);
  });

  it('of deletes says what it does', async () => {
    table = await LocalTable.create(partitioned);
    await table.append(rows(0, 10, "'p' || range % 2"));
    const all = await paths();
    const deletes = await table.writeDeletes(all.map((path) => [path, 0]));
    expect(deletes).toHaveLength(2);
    await table.commit([], deletes);
    expect(currentSnapshot(table.metadata)!.summary).toMatchObject({
      operation: 'delete',
      'added-delete-files': '2',
      'added-position-deletes': '2',
      'total-position-deletes': '2',
      'total-records': '10',
      'changed-partition-count': '2',
    });
    await table.commit(await table.write(rows(20, 21)), await table.writeDeletes([[all[0]!, 1]]));
    expect(currentSnapshot(table.metadata)!.summary.operation).toBe('overwrite');
    expect(await ids()).toHaveLength(8);
  });

  it.each(['file', 'partition'] as const)('has one delete file for each %s', async (granularity) => {
    table = await LocalTable.create({ ...options, targetFileBytes: 1, rowGroupRows: 2048 });
    await table.append(rows(0, 6000));
    const all = await paths();
    expect(all.length).toBeGreaterThan(1);
    const deletes = await table.writeDeletes(
      all.flatMap((path) => [[path, 5] as const, [path, 0] as const]),
      granularity,
    );
    expect(deletes).toHaveLength(granularity === 'file' ? all.length : 1);
    for (const { file, targets } of deletes) {
      expect(file.referenced_data_file).toBe(granularity === 'file' ? targets[0] : null);
      expect(file.record_count).toBe(targets.length * 2);
    }
    await table.commit([], deletes);
    expect(await ids()).toHaveLength(6000 - all.length * 2);
  });
});

describe('a commit that comes second', () => {
  it('keeps its manifests and takes the next sequence number', async () => {
    table = await LocalTable.create(options);
    await table.append(rows(0, 3));
    const [first] = await paths();
    const prepared = await table.prepare(
      await table.write(rows(3, 5)),
      await table.writeDeletes([[first!, 0]]),
    );
    const early = await table.rebase(prepared);
    await table.append(rows(10, 12));
    await expect(table.apply(early)).rejects.toThrow(/conflict/);
    const late = await table.rebase(prepared);
    expect(late.snapshot['snapshot-id']).toBe(early.snapshot['snapshot-id']);
    await table.apply(late);
    const manifests = await dumpManifests(table.store, table.metadata);
    const own = prepared.manifests.map(({ manifest_path: path }) => path);
    expect(manifests.slice(0, 2).map(({ path }) => path)).toEqual(own);
    expect(manifests.slice(0, 2).flatMap(({ entries }) => entries.map(({ sequence }) => sequence))).toEqual([
      3, 3,
    ]);
    expect(early.written).not.toContain(own[0]);
    expect(await ids()).toEqual([1, 2, 3, 4, 10, 11]);
  });

  it('says which files it needs are gone', async () => {
    table = await LocalTable.create(options);
    await table.append(rows(0, 3));
    await table.append(rows(3, 6));
    const [one, other] = await paths();
    const deletes = await table.prepare([], await table.writeDeletes([[one!, 0]]));
    const removal = await table.prepare([], [], { removed: [one!, other!] });
    await table.commit(await table.write(rows(0, 3)), [], { removed: [one!], keepsRows: true });
    const live = await table.live();
    for (const prepared of [deletes, removal]) {
      expect(await rebaseCommit(table.store, prepared, table.metadata, live, { nowMs: 0 })).toEqual({
        vanished: [one],
      });
    }
    expect(await ids()).toEqual(range(0, 6));
  });

  it('keeps what its writer wants to find again, and its time does not run backwards', async () => {
    table = await LocalTable.create(options);
    const prepared = await prepareCommit(table.store, table.metadata, {
      added: [],
      deletes: [],
      removed: [],
    });
    const attempt = await rebaseCommit(table.store, prepared, table.metadata, await table.live(), {
      nowMs: 5,
      summary: { 'tidemark.position': '1/2', operation: 'nonsense' },
    });
    expect(attempt).toMatchObject({
      snapshot: {
        summary: { 'tidemark.position': '1/2', operation: 'append' },
        'timestamp-ms': table.metadata['last-updated-ms'],
      },
    });
  });
});

describe('removing data files', () => {
  it('takes away the deletes that only they had', async () => {
    table = await LocalTable.create(partitioned);
    await table.append(rows(0, 6, "'p' || range % 2"));
    await table.append(rows(6, 12, "'p' || range % 2"));
    const live = await table.live();
    const inPart = (part: string) =>
      [...live.dataFiles()]
        .filter(({ partition }) => partition[0] === part)
        .sort((a, b) => a.sequence - b.sequence);
    const [old, young] = inPart('p0');
    const other = inPart('p1')[0]!;
    await table.commit([], await table.writeDeletes([[old!.path, 0]], 'file'));
    await table.commit(
      [],
      await table.writeDeletes(
        [
          [old!.path, 1],
          [young!.path, 0],
        ],
        'partition',
      ),
    );
    await table.commit([], await table.writeDeletes([[other.path, 0]], 'partition'));
    expect(await ids()).toHaveLength(8);
    await table.commit([], [], { removed: [old!.path] });
    const { summary } = currentSnapshot(table.metadata)!;
    // The file-scoped one goes; that of both stays for the younger.
    expect(summary).toMatchObject({
      operation: 'delete',
      'deleted-data-files': '1',
      'deleted-records': '3',
      'removed-position-delete-files': '1',
      'total-delete-files': '2',
    });
    expect(await ids()).toHaveLength(7);
    await table.commit(await table.write(rows(100, 101, "'p0'")), [], { removed: [young!.path] });
    expect(currentSnapshot(table.metadata)!.summary).toMatchObject({
      'total-delete-files': '1',
      operation: 'overwrite',
    });
    const manifests = await dumpManifests(table.store, table.metadata);
    const statuses = manifests.flatMap(({ entries }) => entries.map(({ status, path }) => [path, status]));
    expect(statuses).toContainEqual([young!.path, 2]);
    expect(await ids()).toEqual([3, 5, 7, 9, 11, 100]);
  });

  it('lists no manifest again that has deleted files only', async () => {
    table = await LocalTable.create(options);
    await table.append(rows(0, 3));
    const removed = await paths();
    await table.commit([], [], { removed });
    expect((await dumpManifests(table.store, table.metadata)).map(({ counts }) => counts)).toEqual([
      [0, 0, 1, 0, 0, 3],
    ]);
    await table.append(rows(3, 4));
    expect(await dumpManifests(table.store, table.metadata)).toHaveLength(1);
    expect(await ids()).toEqual([3]);
  });

  it('leaves the rows of a compaction as old as they were', async () => {
    table = await LocalTable.create(options);
    await table.append(rows(0, 3));
    const [path] = await paths();
    const compacted = await table.write(rows(0, 3));
    await table.upload(compacted);
    const change = {
      added: compacted.map(({ file }) => ({ file, specId: 0, sequence: 1 })),
      deletes: [],
      removed: [path!],
      keepsRows: true,
    };
    const prepared = await prepareCommit(table.store, table.metadata, change);
    // In between somebody deletes by equality, which holds for older rows.
    const equality = {
      ...compacted[0]!.file,
      content: 2 as const,
      file_path: `${path}-equality.parquet`,
      equality_ids: [1],
    };
    const [one] = await table.write(rows(1, 2));
    await table.store.putFile(equality.file_path, one!.localPath);
    await table.commit([], [{ file: equality, localPath: one!.localPath, specId: 0, targets: [] }]);
    await table.apply(await table.rebase(prepared));
    expect(currentSnapshot(table.metadata)!.summary.operation).toBe('replace');
    expect(await ids()).toEqual([0, 2]);
  });
});

describe('manifests', () => {
  it('become one when there are many small ones', async () => {
    table = await LocalTable.create({
      ...options,
      properties: { 'commit.manifest.min-count-to-merge': '4' },
    });
    for (let commit = 0; commit < 10; commit += 1) {
      const before = await paths();
      const deletes = before.length === 0 ? [] : await table.writeDeletes([[before[0]!, commit]]);
      await table.commit(await table.write(rows(commit * 100, commit * 100 + 10)), deletes);
    }
    const manifests = await dumpManifests(table.store, table.metadata);
    expect(manifests.length).toBeLessThanOrEqual(9);
    const entries = manifests.filter(({ content }) => content === 0).flatMap((each) => each.entries);
    expect(
      entries.map(({ sequence, file_sequence }) => [sequence, file_sequence]).sort((a, b) => a[0]! - b[0]!),
    ).toEqual(range(1, 11).map((sequence) => [sequence, sequence]));
    expect(entries.some(({ status }) => status === 0)).toBe(true);
    for (const { min_sequence: least, entries: own } of manifests) {
      expect(least).toBe(Math.min(...own.map(({ sequence }) => sequence)));
    }
    expect(await ids()).toHaveLength(100 - 9);
  });

  it('that version 1 listed without counts get them', async () => {
    table = await LocalTable.create(options);
    await table.append(rows(0, 4));
    const snapshot = currentSnapshot(table.metadata)!;
    const [manifest] = await manifestsOf(table.store, snapshot);
    const long = { type: 'long', exact: true };
    const fields = [
      ['manifest_path', 'string', 500],
      ['manifest_length', 'long', 501],
      ['partition_spec_id', 'int', 502],
      ['added_snapshot_id', long, 503],
    ].map(([name, type, id]) => ({ name: name as string, type: type as string, 'field-id': id as number }));
    const list = writeAvroFile({ type: 'record', name: 'manifest_file', fields }, {}, [manifest]);
    await table.store.put(snapshot['manifest-list'], list);
    expect(await ids()).toEqual(range(0, 4));
    await table.append(rows(4, 6));
    const manifests = await manifestsOf(table.store, currentSnapshot(table.metadata));
    expect(manifests[1]).toMatchObject({ added_files_count: 1, added_rows_count: 4, sequence_number: 0 });
    expect(await ids()).toEqual(range(0, 6));
  });

  it('that are gone or damaged are named', async () => {
    table = await LocalTable.create(options);
    await table.append(rows(0, 4));
    const [manifest] = await manifestsOf(table.store, currentSnapshot(table.metadata));
    const whole = (await table.store.get(manifest!.manifest_path))!;
    for (const bytes of [whole.subarray(0, whole.length - 20), Buffer.from('nonsense'), Buffer.alloc(0)]) {
      await table.store.put(manifest!.manifest_path, bytes);
      await expect(entriesOf(table.store, table.metadata, manifest!)).rejects.toMatchObject({
        code: 'TM405',
        message: expect.stringContaining(manifest!.manifest_path),
      });
    }
    await table.store.delete([manifest!.manifest_path]);
    await expect(table.live()).rejects.toThrow(/is gone/);
  });
});
