/** Snapshots and their references as their JSON (Iceberg specification, "Snapshots", "Snapshot References"). */
import { randomBytes } from 'node:crypto';
import type { Json } from '../catalog/exact-json.ts';
import { malformed, unsupported } from '../failures.ts';
import { JsonReader } from './json-reader.ts';

export type SnapshotOperation = 'append' | 'replace' | 'overwrite' | 'delete';

/** Counts are decimal text; what else a writer wants to say of its commit is in it too. */
export type SnapshotSummary = { operation: SnapshotOperation } & Record<string, string>;

export interface Snapshot {
  'snapshot-id': bigint;
  'parent-snapshot-id'?: bigint;
  'sequence-number': number;
  'timestamp-ms': number;
  'manifest-list': string;
  summary: SnapshotSummary;
  'schema-id'?: number;
}

/** A type, not an interface: the catalog takes updates of any fields. */
export type SnapshotReference = {
  'snapshot-id': bigint;
  type: 'branch' | 'tag';
  'min-snapshots-to-keep'?: number;
  'max-snapshot-age-ms'?: number;
  'max-ref-age-ms'?: number;
};

export const mainBranch = 'main';

const operations: readonly string[] = ['append', 'replace', 'overwrite', 'delete'];

/** @throws TidemarkError TM405 */
export function parseSnapshot(json: Json | undefined, what: string): Snapshot {
  const reader = new JsonReader(json, what);
  if (!reader.has('manifest-list')) {
    throw unsupported(
      `${what} lists its manifests in the metadata`,
      'Tables of such early writers must be rewritten: copy its rows to a new table.',
    );
  }
  const parent = reader.optional('parent-snapshot-id', () => reader.long('parent-snapshot-id'));
  const schemaId = reader.optional('schema-id', () => reader.integer('schema-id'));
  return {
    'snapshot-id': reader.long('snapshot-id'),
    ...(parent === undefined ? {} : { 'parent-snapshot-id': parent }),
    // Version 1 has none.
    'sequence-number': reader.optional('sequence-number', () => reader.integer('sequence-number')) ?? 0,
    'timestamp-ms': reader.integer('timestamp-ms'),
    'manifest-list': reader.text('manifest-list'),
    summary: parseSummary(reader),
    ...(schemaId === undefined ? {} : { 'schema-id': schemaId }),
  };
}

function parseSummary(reader: JsonReader): SnapshotSummary {
  const summary =
    reader.optional('summary', () => reader.map('summary', (inner, key) => inner.text(key))) ?? {};
  const operation = summary.operation ?? 'overwrite';
  if (!operations.includes(operation)) throw malformed(`${reader.what}: its operation is not known`);
  return { ...summary, operation: operation as SnapshotOperation };
}

/** Others say 2^63 - 1 for ever. */
const longest = BigInt(Number.MAX_SAFE_INTEGER);

/** @throws TidemarkError TM405 */
export function parseSnapshotReference(json: Json | undefined, what: string): SnapshotReference {
  const reader = new JsonReader(json, what);
  const type = reader.text('type');
  if (type !== 'branch' && type !== 'tag') throw malformed(`${what} is neither branch nor tag`);
  const reference: SnapshotReference = { 'snapshot-id': reader.long('snapshot-id'), type };
  for (const name of ['min-snapshots-to-keep', 'max-snapshot-age-ms', 'max-ref-age-ms'] as const) {
    if (reader.has(name)) reference[name] = Number(smaller(reader.long(name), longest));
  }
  return reference;
}

function smaller(one: bigint, other: bigint): bigint {
  return one < other ? one : other;
}

/** A positive 63-bit integer. @param taken ids of the table's snapshots */
export function newSnapshotId(
  taken: ReadonlySet<bigint>,
  random: (bytes: number) => Buffer = randomBytes,
): bigint {
  for (;;) {
    const id = random(8).readBigUInt64BE() >> 1n;
    if (id > 0n && !taken.has(id)) return id;
  }
}
