/** One Change of a row as records of a batch: value, key, headers, partition. */
import type { IHeaders } from 'kafkajs';
import type { Position } from '../connector/position.ts';
import { tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { KafkaConfig } from '../platform/resolved-config.ts';
import type { Tuple } from '../replicate/pgoutput.ts';
import type { Batch } from './batch.ts';
import type { TransactionContext } from './envelope-frame.ts';
import { partitionOf, TenantPartitions } from './partition.ts';
import { header, recordFormat, type TopicNames } from './record-format.ts';
import type { TableEncoder } from './table-encoder.ts';

/** The tuples of one record. */
export interface RowImages {
  before: Tuple | null;
  after: Tuple | null;
  /** Supplies key columns that the row does not carry. */
  fallback: Tuple | null;
  /** Supplies unchanged TOAST values: a whole old row. */
  fill: Tuple | null;
}

export interface KeyLink {
  name: string;
  key: Buffer;
}

/** The Change that a record is of. */
export interface RecordPlace {
  position: Position;
  transaction: TransactionContext;
}

const formatHeader = Buffer.from(recordFormat);

export class RecordWriter {
  readonly #kafka: KafkaConfig;
  readonly #topics: TopicNames;
  /** The snapshot of the topic's table that is open, or null. */
  readonly #incomplete: (topic: string) => { destination: string | null } | null;
  readonly #tenants: TenantPartitions;

  constructor(options: {
    kafka: KafkaConfig;
    topics: TopicNames;
    snapshots: { incomplete(topic: string): { destination: string | null } | null };
  }) {
    this.#kafka = options.kafka;
    this.#topics = options.topics;
    this.#incomplete = (topic) => options.snapshots.incomplete(topic);
    this.#tenants = new TenantPartitions(options.kafka.partitions);
  }

  /**
   * One record, and the null record after a delete.
   * @param topic where they go, if not to the table's own
   * @throws TidemarkError TM308
   */
  row(
    batch: Batch,
    { position, transaction }: RecordPlace,
    encoder: TableEncoder,
    op: 'c' | 'u' | 'd' | 'r',
    key: Buffer | null,
    row: RowImages,
    link: KeyLink | null,
    topic = encoder.topic,
  ): void {
    const { before, after, fallback, fill } = row;
    const image = (after ?? before)!;
    const { openedAtMs, writer } = batch;
    const value = encoder.encodeEnvelope(op, before, after, fill, transaction, openedAtMs, writer);
    const { headers, bytes } = headersOf(position, link);
    let headerBytes = bytes;
    const { unchanged, exact } = encoder.remarks;
    if (unchanged.length > 0) {
      const text = JSON.stringify(unchanged);
      headers[header.unchanged] = text;
      headerBytes += text.length + 20;
      const incomplete = this.#incomplete(encoder.topic);
      if (incomplete) {
        headers[header.pending] = incomplete.destination ?? '1';
        headerBytes += 20 + (incomplete.destination?.length ?? 0);
      }
    }
    if (op === 'd' && encoder.keyless && this.#incomplete(encoder.topic)) {
      headers[header.pending] = '1';
      headerBytes += 20;
    }
    if (exact) {
      const text = JSON.stringify(exact);
      headers[header.exact] = text;
      headerBytes += text.length + 20;
    }
    this.#requireFit(tableName(encoder.shape), value.length + (key?.length ?? 0) + headerBytes);
    const partition = this.#partition(encoder, image, fallback, key);
    batch.add(topic, partition, key, value, headers, headerBytes);
    if (op === 'd' && key) batch.add(topic, partition, key, null, headersOf(position, null).headers, bytes);
  }

  /** One record in every partition. */
  truncate(batch: Batch, { position, transaction }: RecordPlace, encoder: TableEncoder): void {
    const { openedAtMs, writer } = batch;
    const value = encoder.encodeEnvelope('t', null, null, null, transaction, openedAtMs, writer);
    const { headers, bytes } = headersOf(position, null);
    for (let partition = 0; partition < this.#kafka.partitions; partition++) {
      batch.add(encoder.topic, partition, null, value, headers, bytes);
    }
  }

  /**
   * A raw pgoutput message under its table's name: what a resume re-encodes.
   * @param position of the Change; null: what only describes the table has none of its own
   * @throws TidemarkError TM308
   */
  parked(batch: Batch, position: Position | null, name: string, raw: Buffer): void {
    if (position !== null) this.#requireFit(name, raw.length);
    const headers = position === null ? { [header.format]: formatHeader } : headersOf(position, null).headers;
    batch.add(this.#topics.parked, 0, Buffer.from(name), raw, headers, 80);
  }

  #requireFit(name: string, bytes: number): void {
    const { rowMaxBytes } = this.#kafka;
    if (bytes <= rowMaxBytes) return;
    throw new TidemarkError('TM308', `a row of ${name} has ${bytes} bytes, row.max.bytes is ${rowMaxBytes}`);
  }

  #partition(encoder: TableEncoder, row: Tuple, fallback: Tuple | null, key: Buffer | null): number {
    const tenant = encoder.tenant(row, fallback);
    if (tenant !== null) return this.#tenants.of(tenant);
    return key ? partitionOf(key, this.#kafka.partitions) : 0;
  }
}

function headersOf(position: Position, link: KeyLink | null): { headers: IHeaders; bytes: number } {
  const headers: IHeaders = {
    [header.position]: Buffer.from(position, 'latin1'),
    [header.format]: formatHeader,
  };
  if (!link) return { headers, bytes: 80 };
  headers[link.name] = link.key;
  return { headers, bytes: 100 + link.key.length };
}

/** Both keys where the row's key or tenant differ, else null. */
export function keysOfMove(
  encoder: TableEncoder,
  before: Tuple,
  after: Tuple,
  { writer }: Batch,
): { oldKey: Buffer | null; newKey: Buffer | null } | null {
  // Without a key the old row is all there is to find it by: a delete of that image and a create of the new one.
  if (encoder.keyless) return { oldKey: null, newKey: null };
  const oldKey = encoder.encodeKey(before, null, writer);
  const newKey = encoder.encodeKey(after, before, writer);
  const tenantMoved = encoder.tenant(before, null) !== encoder.tenant(after, before);
  return tenantMoved || !oldKey.equals(newKey) ? { oldKey, newKey } : null;
}
