/** One Change of a row as records of a batch: key, value and headers, written straight into the partition's run. */
import { type Position, positionLength } from '../connector/position.ts';
import { tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import { partitionOf } from '../platform/partition.ts';
import type { KafkaConfig } from '../platform/resolved-config.ts';
import type { Tuple } from '../replicate/pgoutput.ts';
import type { Batch } from './batch.ts';
import { ByteWriter } from './byte-writer.ts';
import { constantBytes, type TransactionContext } from './envelope-frame.ts';
import { header, recordFormat } from './record-format.ts';
import type { HeaderValue, RecordRun } from './record-run.ts';
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

/** A record key, written from the start of a buffer that the next row reuses. */
export type RowKey = Pick<ByteWriter, 'bytes' | 'position'>;

export interface KeyLink {
  name: string;
  key: Buffer;
}

/** The Change that a record is of. */
export interface RecordPlace {
  /** The Transaction's. */
  readonly headers: PlaceHeaders;
  readonly ordinal: number;
  readonly transaction: TransactionContext;
}

const hexDigits = Buffer.from('0123456789ABCDEF');

/** The headers that every record has, as bytes to copy: only the ordinal is another one in each. */
export class PlaceHeaders {
  readonly #bytes: Buffer;
  /** Where the Position ends. */
  readonly #end: number;

  constructor() {
    const before = constantBytes((out) => {
      out.text(header.position);
      out.long(positionLength);
    });
    this.#end = before.length + positionLength;
    const after = constantBytes((out) => {
      out.text(header.format);
      out.text(recordFormat);
    });
    this.#bytes = Buffer.concat([before, Buffer.alloc(positionLength, '0'), after]);
  }

  /** @param prefix what all Positions of the Transaction begin with */
  begin(prefix: string): void {
    this.#bytes.write(prefix, this.#end - positionLength, 'latin1');
  }

  write(ordinal: number, out: ByteWriter): void {
    const end = out.position + this.#end;
    out.raw(this.#bytes);
    let at = end;
    for (let n = ordinal; n > 0; n = n > 0xfffffff ? Math.floor(n / 16) : n >>> 4)
      out.bytes[--at] = hexDigits[n % 16]!;
  }
}

export class RecordWriter {
  readonly #kafka: KafkaConfig;
  /** The snapshot of the topic's table that is open, or null. */
  readonly #incomplete: (topic: string) => { destination: string | null } | null;
  readonly #scratch = new ByteWriter(4096);
  /** Of the record that is written: headers that few have. */
  readonly #extra: [name: string, value: HeaderValue][] = [];

  constructor(options: {
    kafka: KafkaConfig;
    snapshots: { incomplete(topic: string): { destination: string | null } | null };
  }) {
    this.#kafka = options.kafka;
    this.#incomplete = (topic) => options.snapshots.incomplete(topic);
  }

  /**
   * One record, and the null record after a delete. An eviction has none: a null record would be taken for a delete.
   * @param topic where they go, if not to the table's own
   * @throws TidemarkError TM308
   */
  row(
    batch: Batch,
    place: RecordPlace,
    encoder: TableEncoder,
    op: 'c' | 'u' | 'd' | 'r' | 'e',
    key: RowKey | null,
    row: RowImages,
    link: KeyLink | null,
    topic = encoder.topic,
  ): void {
    const { before, after, fallback, fill } = row;
    const partition = this.#partition(encoder, (after ?? before)!, fallback, key);
    const run = batch.run(topic, partition);
    run.begin(key?.bytes ?? null, key?.position ?? -1, (before?.size ?? 0) + (after?.size ?? 0));
    run.beginValue();
    encoder.writeEnvelope(op, before, after, fill, place.transaction, batch.openedAtMs, run.out);
    run.endValue();
    this.#extra.length = 0;
    if (link) this.#extra.push([link.name, link.key]);
    if (op === 'e') this.#extra.push([header.eviction, '1']);
    this.#remark(encoder, op);
    this.#headers(run, place);
    const bytes = run.end();
    if (bytes > this.#kafka.rowMaxBytes) this.#requireFit(tableName(encoder.shape), bytes);
    batch.wrote(bytes);
    if (op === 'd' && key) {
      run.begin(key.bytes, key.position);
      run.noValue();
      this.#extra.length = 0;
      this.#headers(run, place);
      batch.wrote(run.end());
    }
  }

  /** One record in every partition: each says of its own rows that they are gone. */
  truncate(batch: Batch, place: RecordPlace, encoder: TableEncoder): void {
    const { transaction } = place;
    const value = encoder.encodeEnvelope('t', null, null, null, transaction, batch.openedAtMs, this.#scratch);
    this.#extra.length = 0;
    for (let partition = 0; partition < this.#kafka.partitions; partition++) {
      const run = batch.run(encoder.topic, partition);
      run.begin(null, -1);
      run.out.lengthPrefixed(value, 0, value.length);
      this.#headers(run, place);
      batch.wrote(run.end());
    }
  }

  /**
   * A raw pgoutput message under its table's name: what a resume re-encodes.
   * @param topic the parked topic
   * @param position of the Change; null: what only describes the table has none of its own
   * @throws TidemarkError TM308
   */
  parked(batch: Batch, topic: string, position: Position | null, name: string, raw: Buffer): void {
    if (position !== null) this.#requireFit(name, raw.length);
    const format = [header.format, recordFormat] as const;
    const headers = position === null ? [format] : [[header.position, position] as const, format];
    batch.add(topic, 0, Buffer.from(name), raw, headers);
  }

  /** What the row left to its headers. */
  #remark(encoder: TableEncoder, op: 'c' | 'u' | 'd' | 'r' | 'e'): void {
    const { unchanged, exact } = encoder.remarks;
    let pending: string | null = null;
    if (unchanged.length > 0) {
      this.#extra.push([header.unchanged, JSON.stringify(unchanged)]);
      const incomplete = this.#incomplete(encoder.topic);
      if (incomplete) pending = incomplete.destination ?? '1';
    }
    if (op === 'd' && encoder.keyless && this.#incomplete(encoder.topic)) pending = '1';
    if (pending !== null) this.#extra.push([header.pending, pending]);
    if (exact) this.#extra.push([header.exact, JSON.stringify(exact)]);
  }

  #headers(run: RecordRun, place: RecordPlace): void {
    const { out } = run;
    out.long(2 + this.#extra.length);
    place.headers.write(place.ordinal, out);
    for (const [name, value] of this.#extra) run.header(name, value);
  }

  #requireFit(name: string, bytes: number): void {
    const { rowMaxBytes } = this.#kafka;
    if (bytes <= rowMaxBytes) return;
    throw new TidemarkError(
      'TM308',
      `a row of ${name} has ${bytes} bytes, kafka.row.max.bytes is ${rowMaxBytes}`,
    );
  }

  #partition(encoder: TableEncoder, row: Tuple, fallback: Tuple | null, key: RowKey | null): number {
    const { partitions } = this.#kafka;
    const ofTenant = encoder.tenantPartition(row, fallback, partitions);
    if (ofTenant >= 0) return ofTenant;
    return key ? partitionOf(key.bytes, partitions, key.position) : 0;
  }
}

/** Both keys where the row's key or tenant differ, else null. */
export function keysOfMove(
  encoder: TableEncoder,
  before: Tuple,
  after: Tuple,
  scratch: ByteWriter,
): { oldKey: Buffer | null; newKey: Buffer | null } | null {
  // Without a key the old row is all there is to find it by: a delete of that image and a create of the new one.
  if (encoder.keyless) return { oldKey: null, newKey: null };
  const oldKey = encoder.encodeKey(before, null, scratch);
  const newKey = encoder.encodeKey(after, before, scratch);
  const tenantMoved = encoder.tenant(before, null) !== encoder.tenant(after, before);
  return tenantMoved || !oldKey.equals(newKey) ? { oldKey, newKey } : null;
}
