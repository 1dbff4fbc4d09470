/**
 * encodeChange: decoded messages become records with Positions in the batch that is being filled. Tables are prepared
 * (shape, topic, schemas) at their first change; a table that cannot be represented is parked, and the rest goes on.
 */
import type { IHeaders } from 'kafkajs';
import {
  formatPosition,
  ordinalText,
  type Position,
  parsePosition,
  positionPrefix,
} from '../connector/position.ts';
import { tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { Logger } from '../platform/log.ts';
import type { KafkaConfig } from '../platform/resolved-config.ts';
import {
  labelNotePrefix,
  laterNote,
  parseLabelNote,
  parseShapeNote,
  type ShapeNote,
  shapeNotePrefix,
} from '../replicate/column-origins.ts';
import {
  changedRelations,
  decodeMessage,
  type PgoutputHandler,
  type Relation,
  type TransactionStart,
  Tuple,
  valueKind,
} from '../replicate/pgoutput.ts';
import type { Batch } from './batch.ts';
import { type ParkedMessages, parkedNote } from './parked-messages.ts';
import { Parking, type ResumePolicy, resumePolicy } from './parking.ts';
import { partitionOf, TenantPartitions } from './partition.ts';
import type { Progress } from './progress.ts';
import { header, recordFormat, type TopicNames } from './record-format.ts';
import type { DueChunk, TableSnapshots } from './snapshot/table-snapshots.ts';
import type { TableEncoder, TransactionContext } from './table-encoder.ts';
import { parksTable, type StreamNotes } from './table-preparation.ts';

export interface ChangeEncoderOptions {
  kafka: KafkaConfig;
  topics: TopicNames;
  /** Everything up to here is in Kafka already. */
  resume: Progress;
  log: Logger;
  snapshots: TableSnapshots;
  /** Called at each commit, after the batch was marked. */
  onCommit(): void;
}

/** A table as the stream describes it. It is prepared at its first change: a partition's Relation comes without any. */
type KnownTable =
  | { kind: 'described'; relation: Relation; raw: Buffer }
  | { kind: 'published'; relation: Relation; encoder: TableEncoder; parking: ParkedMessages; raw: Buffer }
  | { kind: 'parked'; name: string; columns: string[]; parking: ParkedMessages; raw: Buffer };

/** The tuples of one record. */
interface RowImages {
  before: Tuple | null;
  after: Tuple | null;
  /** Supplies key columns that the row does not carry. */
  fallback: Tuple | null;
  /** Supplies unchanged TOAST values: a whole old row. */
  fill: Tuple | null;
}

interface KeyLink {
  name: string;
  key: Buffer;
}

const formatHeader = Buffer.from(recordFormat);

/** The row of a chunk that is being encoded. */
const snapshotRow = new Tuple();

export class ChangeEncoder implements PgoutputHandler {
  /** Where records go; the publisher puts a new one here when it takes this one. */
  batch: Batch;
  /** Of the last Change, or the end of the last Transaction without any. */
  position: Position;
  /** First WAL byte that is not in a whole Transaction yet. */
  ackLsn: bigint;
  /** Running maximum, microseconds since 1970 UTC. */
  commitTimeUs: bigint;
  readonly epoch: number;
  readonly parking: Parking;
  changes = 0;
  transactions = 0;
  readonly #options: ChangeEncoderOptions;
  readonly #tables = new Map<number, KnownTable>();
  readonly #tenants: TenantPartitions;
  readonly #resume: { lsn: bigint; ordinal: number };
  #transaction: TransactionContext | null = null;
  #prefix = '';
  #ordinal = 0;
  /** Changes of this Transaction up to this ordinal are in Kafka already. */
  #skipThrough = 0;
  /** By table, what it was while it was published; a changed Relation replaces the encoder. */
  readonly #moves = new Map<string, string[]>();
  /** By table OID. */
  readonly #shapeNotes = new Map<number, ShapeNote>();
  readonly #formerNames = new Map<number, string>();
  #replaying = false;
  /** The message that is being decoded. */
  #raw: Buffer = Buffer.alloc(0);
  #lastCommitLsn: bigint;
  #serial = 0;

  constructor(options: ChangeEncoderOptions, batch: Batch) {
    this.#options = options;
    const { epoch, lsn, ordinal } = parsePosition(options.resume.position);
    this.batch = batch;
    this.epoch = epoch;
    this.position = options.resume.position;
    this.ackLsn = options.resume.ackLsn;
    this.commitTimeUs = options.resume.commitTimeUs;
    this.parking = new Parking(options.resume.parked);
    this.#resume = { lsn, ordinal };
    this.#lastCommitLsn = lsn;
    this.#tenants = new TenantPartitions(options.kafka.partitions);
  }

  get inTransaction(): boolean {
    return this.#transaction !== null;
  }

  /**
   * Encodes one pgoutput message.
   * @returns the relation that must be prepared first, in which case nothing was done; else null
   */
  encode(message: Buffer): Relation | null {
    for (const oid of changedRelations(message)) {
      const table = this.#tables.get(oid);
      if (table?.kind !== 'described' || (this.#replaying && !this.#isReplayed(oid))) continue;
      return table.relation;
    }
    this.#raw = message;
    decodeMessage(message, this);
    return null;
  }

  /** As encode, for a message that was parked: of a truncate only the part that is about the table that comes back. */
  replay(message: Buffer): Relation | null {
    this.#replaying = true;
    try {
      return this.encode(message);
    } finally {
      this.#replaying = false;
    }
  }

  #isReplayed(oid: number): boolean {
    const table = this.#tables.get(oid);
    const name = table?.kind === 'parked' ? table.name : table && tableName(table.relation);
    return name === this.parking.resuming?.table;
  }

  /** The relation's changes can be encoded from now on. */
  publish(relation: Relation, parking: ParkedMessages, encoder: TableEncoder): void {
    const { raw } = this.#tables.get(relation.oid)!;
    this.#tables.set(relation.oid, { kind: 'published', relation, encoder, parking, raw });
    this.#moves.set(tableName(relation), movesOf(encoder));
    this.#options.snapshots.prepared(encoder);
  }

  /** Its table was parked, here or before the start. */
  isParked(relation: Relation): boolean {
    return this.parking.holds(tableName(relation));
  }

  /** The relation's changes go to the parked topic from now on. @param error null where the table is parked already */
  park(relation: Relation, parking: ParkedMessages, error: TidemarkError | null): void {
    if (error) this.#startParking(tableName(relation), error);
    this.#parkTable(relation, parking, this.#tables.get(relation.oid)!.raw);
  }

  begin(start: TransactionStart): void {
    this.#serial++;
    this.#transaction = { ...start, previousCommitLsn: this.#lastCommitLsn, serial: this.#serial };
    this.#prefix = positionPrefix(this.epoch, start.commitLsn);
    this.#ordinal = 0;
    const { lsn, ordinal } = this.#resume;
    this.#skipThrough =
      start.commitLsn < lsn ? Number.MAX_SAFE_INTEGER : start.commitLsn === lsn ? ordinal : 0;
  }

  commit(commitLsn: bigint, endLsn: bigint): void {
    const { commitTimeUs, xid } = this.#open();
    const chunk = this.#options.snapshots.committed(xid);
    if (chunk) this.#publishChunk(chunk);
    this.#transaction = null;
    this.#lastCommitLsn = commitLsn;
    if (commitTimeUs > this.commitTimeUs) this.commitTimeUs = commitTimeUs;
    if (endLsn > this.ackLsn) this.ackLsn = endLsn;
    const position = formatPosition({ epoch: this.epoch, lsn: commitLsn, ordinal: this.#ordinal });
    if (position > this.position) this.position = position;
    this.transactions++;
    this.parking.endTransaction(this.position);
    this.batch.markBoundary(this.position, this.ackLsn, this.commitTimeUs);
    this.#options.onCommit();
  }

  /**
   * Also one that says the same as before is prepared anew: a column that was dropped and added again looks the same.
   */
  relation(relation: Relation, raw: Buffer): void {
    this.#options.snapshots.partitions.described(relation.oid);
    const known = this.#tables.get(relation.oid);
    if (known?.kind === 'parked' && known.raw.equals(raw) && this.parking.holds(known.name)) return;
    const formerName = known && (known.kind === 'parked' ? known.name : tableName(known.relation));
    if (formerName !== undefined && formerName !== tableName(relation))
      this.#formerNames.set(relation.oid, formerName);
    this.#tables.set(relation.oid, { kind: 'described', relation, raw: Buffer.from(raw) });
  }

  /** What the stream told of the table besides its Relation. */
  notesOf({ oid }: Relation): StreamNotes {
    return {
      shape: this.#shapeNotes.get(oid) ?? null,
      renamedFrom: this.#formerNames.get(oid) ?? null,
      // A message that was parked is older than its Transaction, and the catalogue has moved on since.
      xid: this.parking.resuming ? null : this.#open().xid,
      policy: this.parking.resuming?.as ?? null,
    };
  }

  insert(oid: number, after: Tuple, raw: Buffer): void {
    this.#change(oid, raw, (encoder) =>
      this.#write(encoder, 'c', { before: null, after, fallback: null, fill: null }),
    );
  }

  update(oid: number, before: Tuple | null, beforeIsFull: boolean, after: Tuple, raw: Buffer): void {
    const known = this.#tables.get(oid);
    if (known?.kind === 'parked' && before && this.#movedBeforeParking(known, before, after)) this.#ordinal++;
    const fill = beforeIsFull ? before : null;
    this.#change(oid, raw, (encoder) => {
      const moved = before && this.#moved(encoder, before, after);
      if (moved) {
        if (!fill) encoder.requireHashable(before!, after);
        // A row that changes its key or its tenant leaves its partition: delete there, create here.
        const { oldKey, newKey } = moved;
        const newLink = newKey ? { name: header.newKey, key: newKey } : null;
        const oldLink = oldKey ? { name: header.oldKey, key: oldKey } : null;
        this.#write(encoder, 'd', { before, after: null, fallback: null, fill: null }, newLink);
        this.#write(encoder, 'c', { before: null, after, fallback: before, fill }, oldLink);
      } else this.#write(encoder, 'u', { before: fill, after, fallback: before, fill });
    });
  }

  delete(oid: number, before: Tuple, _beforeIsFull: boolean, raw: Buffer): void {
    this.#change(oid, raw, (encoder) =>
      this.#write(encoder, 'd', { before, after: null, fallback: null, fill: null }),
    );
  }

  truncate(oids: number[], raw: Buffer): void {
    for (const oid of oids) {
      if (this.#replaying && !this.#isReplayed(oid)) continue;
      this.#change(oid, raw, (encoder) => {
        this.#options.snapshots.truncated(encoder.topic);
        if (!this.#nextPosition()) return;
        const value = encoder.encodeEnvelope(
          't',
          null,
          null,
          null,
          this.#open(),
          this.batch.openedAtMs,
          this.batch.writer,
        );
        const { headers, bytes } = this.#headers(null);
        for (let partition = 0; partition < this.#options.kafka.partitions; partition++) {
          this.batch.add(encoder.topic, partition, null, value, headers, bytes);
        }
      });
    }
  }

  /** Logical messages are not rows of a tracked table: they are notes about them, or a snapshot's marks. */
  message(transactional: boolean, prefix: string, content: Buffer): void {
    if (!transactional) return;
    this.#options.snapshots.message(prefix, content);
    const as = resumePolicy(prefix);
    if (as) this.#startResume(content.toString('utf8'), as);
    else if (prefix === shapeNotePrefix) {
      const note = parseShapeNote(content);
      const table = this.#tables.get(note.oid);
      // With the messages that it belongs to.
      if (table?.kind === 'parked' && !this.#replaying)
        this.#park(table.name, parkedNote(this.#raw, content), { [header.format]: formatHeader });
      this.#shapeNotes.set(note.oid, laterNote(this.#shapeNotes.get(note.oid), note));
    } else if (prefix === labelNotePrefix) this.#describeAgain(parseLabelNote(content));
  }

  #startResume(table: string, as: ResumePolicy): void {
    if (!this.parking.startResume(table, as)) {
      this.#options.log.warn(`${table} was to be resumed and is not parked`, { position: this.position });
      return;
    }
    // The notes come once more, in their order.
    for (const [oid, known] of this.#tables)
      if (known.kind === 'parked' && known.name === table) this.#shapeNotes.delete(oid);
    this.#options.log.info(`${table} is resumed: what was parked of it is published now`, {
      parkedAt: this.parking.get(table)!.position,
    });
  }

  /** New labels come without a Relation message. */
  #describeAgain(type: { schema: string; name: string }): void {
    for (const [oid, table] of this.#tables) {
      if (table.kind !== 'published') continue;
      const uses = table.encoder.shape.columns.some(
        ({ enum: used }) => used?.schema === type.schema && used.name === type.name,
      );
      const { relation, raw } = table;
      if (uses) this.#tables.set(oid, { kind: 'described', relation, raw });
    }
  }

  /**
   * At the commit of a chunk's high mark: its rows take Positions under it. All at once, so that no batch ever ends
   * between them: what is in Kafka of a chunk is the whole of it, with its cursor.
   */
  #publishChunk(due: DueChunk): void {
    const { chunk } = due;
    const { rows, encoder } = chunk.content!;
    const name = tableName(encoder.shape);
    if (this.parking.holds(name)) {
      chunk.settle({ kind: 'stopped', error: parkedError(name) });
      return;
    }
    if (due.reshaped) {
      chunk.settle({ kind: 'void', reason: 'shape' });
      return;
    }
    const ordinal = this.#ordinal;
    const { position } = this;
    const savepoint = this.batch.savepoint(chunk.into);
    const { writer } = this.batch;
    try {
      for (let i = 0; i < rows.count; i++) {
        rows.read(i, snapshotRow);
        const key = encoder.encodeKey(snapshotRow, null, writer);
        const isLast = i === rows.count - 1;
        if (!due.take(key, () => encoder.keyTexts(snapshotRow, null), isLast)) continue;
        this.#nextPosition();
        const images = { before: null, after: snapshotRow, fallback: null, fill: null };
        this.#add(encoder, 'r', key, images, null, chunk.into);
      }
    } catch (error) {
      if (!parksTable(error)) throw error;
      this.batch.rollback(chunk.into, savepoint);
      this.#ordinal = ordinal;
      this.position = position;
      chunk.settle({ kind: 'stopped', error });
      return;
    }
    if (this.batch.records > savepoint.records) this.batch.hasChunk = true;
    const { commitLsn } = this.#open();
    due.published(formatPosition({ epoch: this.epoch, lsn: commitLsn, ordinal: this.#ordinal }), () =>
      this.#options.log.warn(
        `the snapshot of ${name} starts over: too many rows changed while they were read`,
      ),
    );
  }

  /** Both keys where the row's key or tenant differ, else null. */
  #moved(
    encoder: TableEncoder,
    before: Tuple,
    after: Tuple,
  ): { oldKey: Buffer | null; newKey: Buffer | null } | null {
    const { writer } = this.batch;
    // Without a key the old row is all there is to find it by: a delete of that image and a create of the new one.
    if (encoder.keyless) return { oldKey: null, newKey: null };
    const oldKey = encoder.encodeKey(before, null, writer);
    const newKey = encoder.encodeKey(after, before, writer);
    const tenantMoved = encoder.tenant(before, null) !== encoder.tenant(after, before);
    return tenantMoved || !oldKey.equals(newKey) ? { oldKey, newKey } : null;
  }

  #write(encoder: TableEncoder, op: 'c' | 'u' | 'd', row: RowImages, link: KeyLink | null = null): void {
    const { snapshots } = this.#options;
    const fresh = this.#nextPosition();
    if (!fresh && snapshots.idle) return;
    const image = (row.after ?? row.before)!;
    const key = encoder.keyless ? null : encoder.encodeKey(image, row.fallback, this.batch.writer);
    if (key && !snapshots.idle) {
      const partial = row.after !== null && encoder.leavesUnknown(row.after, row.fill);
      const moved = link?.name === header.oldKey;
      snapshots.rowChanged(
        encoder.topic,
        key,
        partial,
        moved ? () => encoder.keyTexts(image, row.fallback) : null,
      );
    }
    if (fresh) this.#add(encoder, op, key, row, link);
  }

  /** One record, and the null record after a delete, at the current Position. */
  #add(
    encoder: TableEncoder,
    op: 'c' | 'u' | 'd' | 'r',
    key: Buffer | null,
    row: RowImages,
    link: KeyLink | null,
    topic = encoder.topic,
  ): void {
    const { writer } = this.batch;
    const image = (row.after ?? row.before)!;
    const value = encoder.encodeEnvelope(
      op,
      row.before,
      row.after,
      row.fill,
      this.#open(),
      this.batch.openedAtMs,
      writer,
    );
    const { headers, bytes } = this.#headers(link);
    let headerBytes = bytes;
    const { unchanged, exact } = encoder.remarks;
    if (unchanged.length > 0) {
      const text = JSON.stringify(unchanged);
      headers[header.unchanged] = text;
      headerBytes += text.length + 20;
      const incomplete = this.#options.snapshots.incomplete(encoder.topic);
      if (incomplete) {
        headers[header.pending] = incomplete.destination ?? '1';
        headerBytes += 20 + (incomplete.destination?.length ?? 0);
      }
    }
    if (op === 'd' && encoder.keyless && this.#options.snapshots.incomplete(encoder.topic)) {
      headers[header.pending] = '1';
      headerBytes += 20;
    }
    if (exact) {
      const text = JSON.stringify(exact);
      headers[header.exact] = text;
      headerBytes += text.length + 20;
    }
    this.#requireFit(tableName(encoder.shape), value.length + (key?.length ?? 0) + headerBytes);
    const partition = this.#partition(encoder, image, row.fallback, key);
    this.batch.add(topic, partition, key, value, headers, headerBytes);
    if (op === 'd' && key) this.batch.add(topic, partition, key, null, this.#headers(null).headers, bytes);
  }

  /** Parks the table where its change cannot be represented; nothing of that change stays in the batch. */
  #change(oid: number, raw: Buffer, write: (encoder: TableEncoder) => void): void {
    const table = this.#tables.get(oid);
    if (!table)
      throw new TidemarkError('TM206', `pgoutput sent a change of relation ${oid} without describing it`);
    if (table.kind === 'parked') {
      this.#parkChange(table.name, table.parking.withhold(raw));
      return;
    }
    if (table.kind === 'described')
      throw new TidemarkError('TM901', 'a table was not prepared before its change');
    const ordinal = this.#ordinal;
    const savepoint = this.batch.savepoint(table.encoder.topic);
    try {
      write(table.encoder);
    } catch (error) {
      if (!parksTable(error)) throw error;
      this.batch.rollback(table.encoder.topic, savepoint);
      this.#ordinal = ordinal;
      const name = tableName(table.encoder.shape);
      this.#startParking(name, error);
      this.#parkTable(table.relation, table.parking, table.raw);
      this.#parkChange(name, table.parking.withhold(raw));
    }
  }

  #startParking(name: string, error: TidemarkError): void {
    const position = (
      this.#transaction ? this.#prefix + ordinalText(this.#ordinal + 1) : this.position
    ) as Position;
    const { code, message: reason } = error;
    this.parking.park(name, { position, code, reason, moves: this.#moves.get(name) ?? null });
    this.#options.log.error(
      `table ${name} is parked: its changes go to ${this.#options.topics.parked}, everything else goes on`,
      {
        code: error.code,
        reason: error.message,
        remedy: error.remedy,
        position,
      },
    );
  }

  /**
   * In a Transaction that is read again, a table that was parked inside it is parked from its start: what was two
   * Changes then must count as two now, or the Changes after it would get other Positions.
   */
  #movedBeforeParking(table: KnownTable & { kind: 'parked' }, before: Tuple, after: Tuple): boolean {
    const { position, moves } = this.parking.get(table.name)!;
    if (moves === null || this.#prefix + ordinalText(this.#ordinal + 1) >= position) return false;
    if (moves.length === 0) return true;
    return table.columns.some((name, at) => {
      if (!moves.includes(name) || after.kinds[at] === valueKind.unchanged) return false;
      const oldBytes = before.bytes.subarray(before.starts[at], before.ends[at]);
      return !oldBytes.equals(after.bytes.subarray(after.starts[at], after.ends[at]));
    });
  }

  #parkTable(relation: Relation, parking: ParkedMessages, raw: Buffer): void {
    const name = tableName(relation);
    const columns = relation.columns.map((column) => column.name);
    this.#tables.set(relation.oid, { kind: 'parked', name, columns, parking, raw });
    // A Relation is not a Change: it has no Position of its own.
    this.#park(name, raw, { [header.format]: formatHeader });
  }

  /** @param raw a copy, without what is withheld */
  #parkChange(name: string, raw: Buffer): void {
    if (!this.#nextPosition()) return;
    this.#requireFit(name, raw.length);
    this.#park(name, raw, this.#headers(null).headers);
  }

  #requireFit(name: string, bytes: number): void {
    const { rowMaxBytes } = this.#options.kafka;
    if (bytes <= rowMaxBytes) return;
    throw new TidemarkError('TM308', `a row of ${name} has ${bytes} bytes, row.max.bytes is ${rowMaxBytes}`);
  }

  /** A raw pgoutput message under its table's name: what a resume re-encodes. */
  #park(name: string, raw: Buffer, headers: IHeaders): void {
    this.batch.add(this.#options.topics.parked, 0, Buffer.from(name), raw, headers, 80);
  }

  /** @returns false where Kafka has this Change already */
  #nextPosition(): boolean {
    this.#ordinal++;
    if (this.#ordinal <= this.#skipThrough) return false;
    this.position = (this.#prefix + ordinalText(this.#ordinal)) as Position;
    this.batch.changes++;
    this.changes++;
    return true;
  }

  #headers(link: KeyLink | null): { headers: IHeaders; bytes: number } {
    const headers: IHeaders = {
      [header.position]: Buffer.from(this.position, 'latin1'),
      [header.format]: formatHeader,
    };
    if (!link) return { headers, bytes: 80 };
    headers[link.name] = link.key;
    return { headers, bytes: 100 + link.key.length };
  }

  #partition(encoder: TableEncoder, row: Tuple, fallback: Tuple | null, key: Buffer | null): number {
    const tenant = encoder.tenant(row, fallback);
    if (tenant !== null) return this.#tenants.of(tenant);
    return key ? partitionOf(key, this.#options.kafka.partitions) : 0;
  }

  #open(): TransactionContext {
    if (!this.#transaction) throw new TidemarkError('TM206', 'pgoutput sent a change outside a transaction');
    return this.#transaction;
  }
}

function parkedError(name: string): TidemarkError {
  return new TidemarkError('TM223', `${name} is parked, so its snapshot cannot go on`);
}

/** The columns whose change makes an update a delete and a create; none for a table without a key: there it always is. */
function movesOf({ shape, keyless }: TableEncoder): string[] {
  if (keyless) return [];
  const columns = new Set(shape.keyColumns);
  if (shape.tenantColumn !== null) columns.add(shape.tenantColumn);
  return [...columns].map((column) => shape.columns[column]!.name);
}
