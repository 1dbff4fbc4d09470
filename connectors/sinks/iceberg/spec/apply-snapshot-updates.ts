/** The part of apply-updates.ts that is about snapshots and references. */
import { isObject, type Json } from '../catalog/exact-json.ts';
import { malformed } from '../failures.ts';
import { mainBranch } from './snapshot.ts';
import { snapshotById, type TableMetadata } from './table-metadata.ts';
import type { TableUpdate } from './updates.ts';

export type SnapshotUpdate = Extract<
  TableUpdate,
  { action: 'add-snapshot' | 'set-snapshot-ref' | 'remove-snapshots' | 'remove-snapshot-ref' }
>;

export function applyToSnapshots(metadata: TableMetadata, update: SnapshotUpdate, nowMs: number): void {
  switch (update.action) {
    case 'add-snapshot': {
      const { snapshot } = update;
      if (snapshotById(metadata, snapshot['snapshot-id'])) throw malformed('the snapshot is there already');
      const sequence = snapshot['sequence-number'];
      const orphan = snapshot['parent-snapshot-id'] === undefined;
      if (metadata['format-version'] === 2 && sequence <= metadata['last-sequence-number'] && !orphan)
        throw malformed(`sequence number ${sequence} was given already`);
      metadata['last-sequence-number'] = Math.max(metadata['last-sequence-number'], sequence);
      metadata.snapshots.push(snapshot);
      return;
    }
    case 'set-snapshot-ref': {
      const { action, 'ref-name': name, ...reference } = update;
      const id = reference['snapshot-id'];
      if (!snapshotById(metadata, id)) throw malformed('the commit names a snapshot that is not there');
      metadata.refs = { ...metadata.refs, [name]: reference };
      if (name !== mainBranch) return;
      metadata['current-snapshot-id'] = id;
      metadata['snapshot-log'].push({ 'snapshot-id': id, 'timestamp-ms': nowMs });
      return;
    }
    case 'remove-snapshot-ref': {
      const { [update['ref-name']]: removed, ...rest } = metadata.refs;
      metadata.refs = rest;
      if (removed && update['ref-name'] === mainBranch) metadata['current-snapshot-id'] = null;
      return;
    }
    default: {
      const gone = new Set(update['snapshot-ids']);
      metadata.snapshots = metadata.snapshots.filter((each) => !gone.has(each['snapshot-id']));
      metadata.refs = Object.fromEntries(
        Object.entries(metadata.refs).filter(([, reference]) => !gone.has(reference['snapshot-id'])),
      );
      const counts = (file: Json) =>
        !isObject(file) || !gone.has(BigInt(file['snapshot-id'] as number | bigint));
      metadata.statistics = metadata.statistics.filter(counts);
      metadata['partition-statistics'] = metadata['partition-statistics'].filter(counts);
      const lastGone = metadata['snapshot-log'].findLastIndex((each) => gone.has(each['snapshot-id']));
      metadata['snapshot-log'] = metadata['snapshot-log'].slice(lastGone + 1);
    }
  }
}
