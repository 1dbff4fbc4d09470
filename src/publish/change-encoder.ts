/**
 * encodeChange: decoded messages become records with Positions in the batch that is being filled. Tables are prepared
 * (shape, topic, schemas) at their first change; a table that cannot be represented is parked, and the rest goes on.
 */
import type { Position } from '../connector/position.ts';
import { type TableId, tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import { errorFields, type Logger } from '../platform/log.ts';
import type { KafkaConfig } from '../platform/resolved-config.ts';
import { parseTableName } from '../platform/table-name.ts';
import {
  labelNotePrefix,
  parseLabelNote,
  parseShapeNote,
  shapeNotePrefix,
} from '../replicate/column-origins.ts';
import {
  changedRelations,
  decodeMessage,
  type PgoutputHandler,
  type Relation,
  type TransactionStart,
  type Tuple,
} from '../replicate/pgoutput.ts';
import type { Batch } from './batch.ts';
import { ByteWriter } from './byte-writer.ts';
import { ErasedRows } from './erased-rows.ts';
import { changesAny, type KnownTable, KnownTables, nameOf } from './known-tables.ts';
import { type ParkedMessages, parkedNote } from './parked-messages.ts';
import { Parking, type ResumePolicy, resumePolicy } from './parking.ts';
import type { Progress } from './progress.ts';
import { header, type TopicNames } from './record-format.ts';
import { type KeyLink, keysOfMove, RecordWriter, type RowImages } from './record-writer.ts';
import { encodeChunk } from './snapshot/encode-chunk.ts';
import type { TableSnapshots } from './snapshot/table-snapshots.ts';
import { StreamPlace } from './stream-place.ts';
import type { TableEncoder } from './table-encoder.ts';
import { parksTable, type StreamNotes } from './table-preparation.ts';
import { type ErasedRow, Tombstones } from './tombstones.ts';

/** D: a Delete message. */
const deleteByte = 0x44;

export interface ChangeEncoderOptions {
  kafka: KafkaConfig;
  topics: TopicNames;
  /** Everything up to here is in Kafka already. */
  resume: Progress;
  log: Logger;
  snapshots: TableSnapshots;
  /** What deletes are that may be evictions by another name; `stop` where absent. */
  unmatchedDeletes?: 'stop' | 'delete' | undefined;
  /** Called at each commit, after the batch was marked. */
  onCommit(): void;
}

export class ChangeEncoder implements PgoutputHandler {
  /** Where records go; the publisher puts a new one here when it takes this one. */
  batch: Batch;
  readonly place: StreamPlace;
  readonly parking: Parking;
  readonly #options: ChangeEncoderOptions;
  readonly #records: RecordWriter;
  readonly #tables = new KnownTables();
  readonly #tombstones = new Tombstones();
  /** Control topics that records can be written to. */
  readonly #controlTopics = new Set<string>();
  /**
   * A table of which something comes next that needs more than its Relation, before the message after this one: its
   * control topic, for evictions; an encoder, for rows that are erased while nothing of the table is streamed.
   */
  unprepared: { table: TableId; for: 'evictions' | 'erasures' } | null = null;
  readonly #erased: ErasedRows;
  #replaying = false;
  /** The key of the row that is being written. */
  readonly #key = new ByteWriter(1024);
  readonly #scratch = new ByteWriter(4096);
  /** The message that is being decoded. */
  #raw: Buffer = Buffer.alloc(0);

  constructor(options: ChangeEncoderOptions, batch: Batch) {
    this.#options = options;
    this.batch = batch;
    this.place = new StreamPlace(options.resume);
    this.parking = new Parking(options.resume.parked);
    this.#records = new RecordWriter(options);
    this.#erased = new ErasedRows((table) => this.#tables.encoderOf(table));
  }

  /**
   * Encodes one pgoutput message.
   * @returns the relation that must be prepared first, in which case nothing was done; else null
   */
  encode(message: Buffer): Relation | null {
    this.#writeErased();
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
    return (table && nameOf(table)) === this.parking.resuming?.table;
  }

  /** The relation's changes can be encoded from now on. */
  publish(relation: Relation, parking: ParkedMessages, encoder: TableEncoder): void {
    this.#tables.publish(relation, parking, encoder);
    this.#erased.forget(relation);
    this.#options.snapshots.prepared(encoder);
  }

  /** The table's evictions can be encoded from now on. */
  controls(topic: string): void {
    this.#controlTopics.add(topic);
    this.unprepared = null;
  }

  /** The table's erased rows can be encoded from now on. @param encoder null: the table was never published */
  erases(table: TableId, encoder: TableEncoder | null): void {
    this.#erased.prepared(table, encoder);
    this.unprepared = null;
  }

  /** Its table was parked, here or before the start. */
  isParked(relation: Relation): boolean {
    return this.parking.holds(tableName(relation));
  }

  /** The relation's changes go to the parked topic from now on. @param error null where the table is parked already */
  park(relation: Relation, parking: ParkedMessages, error: TidemarkError | null): void {
    if (error) this.#startParking(tableName(relation), error);
    this.#parkTable(relation, parking);
  }

  begin(start: TransactionStart): void {
    this.place.begin(start);
    this.#tombstones.begin();
  }

  commit(commitLsn: bigint, endLsn: bigint): void {
    const { place } = this;
    const chunk = this.#options.snapshots.committed(place.transaction.xid);
    if (chunk) {
      const { parking } = this;
      encodeChunk(chunk, this.batch, { place, records: this.#records, parking, log: this.#options.log });
    }
    if (this.#tombstones.unmet > 0) this.#judgeUnmet();
    place.commit(commitLsn, endLsn);
    this.parking.endTransaction(place.position);
    this.batch.markBoundary(place.position, place.ackLsn, place.commitTimeUs);
    this.#options.onCommit();
  }

  /**
   * Also one that says the same as before is prepared anew: a column that was dropped and added again looks the same.
   */
  relation(relation: Relation, raw: Buffer): void {
    this.#options.snapshots.partitions.described(relation.oid);
    this.#tombstones.describe(relation);
    const known = this.#tables.get(relation.oid);
    if (known?.kind === 'parked' && known.raw.equals(raw) && this.parking.holds(known.name)) return;
    this.#tables.describe(relation, raw);
  }

  /** What the stream told of the table besides its Relation. */
  notesOf({ oid }: Relation): StreamNotes {
    const { resuming } = this.parking;
    return {
      shape: this.#tables.noteOf(oid),
      streamed: true,
      renamedFrom: this.#tables.formerNameOf(oid),
      // A message that was parked is older than its Transaction, and the catalogue has moved on since.
      xid: resuming ? null : this.place.transaction.xid,
      policy: resuming?.as ?? null,
    };
  }

  insert(oid: number, after: Tuple, raw: Buffer): void {
    if (!this.#replaying) this.#expectEviction(this.#tombstones.inserted(oid, after));
    this.#change(oid, raw, (encoder) => {
      const recalled =
        this.#tombstones.any && this.#tombstones.recalls(encoder.shape, encoder.keyTexts(after, null));
      this.#write(encoder, recalled ? 'r' : 'c', { before: null, after, fallback: null, fill: null });
    });
  }

  #expectEviction(table: TableId | null): void {
    if (table && !this.#controlTopics.has(this.#options.topics.evictions(table)))
      this.unprepared = { table, for: 'evictions' };
  }

  /**
   * Tombstones without any delete of their table say something untrue, and change nothing. Beside deletes of other rows they
   * may be about those, in another spelling of the key: as deletes these would be gone everywhere. Nobody guesses.
   * The Transaction has no boundary yet, so no destination has merged any of it.
   * @throws TidemarkError TM246
   */
  #judgeUnmet(): void {
    const table = this.#tombstones.doubtful;
    if (table !== null && this.#options.unmatchedDeletes !== 'delete')
      throw new TidemarkError(
        'TM246',
        `a transaction after ${this.place.position} deletes rows of ${table}, and has Tombstones for other ones, which it does not delete`,
      );
    this.#options.log.error('Tombstones came without the deletes that they are about', {
      position: this.place.position,
      rows: this.#tombstones.unmet,
    });
  }

  update(oid: number, before: Tuple | null, beforeIsFull: boolean, after: Tuple, raw: Buffer): void {
    const erased = this.#replaying ? null : this.#tombstones.updated(oid, after);
    const known = this.#tables.get(oid);
    if (known?.kind === 'parked' && before && this.#movedBeforeParking(known, before, after))
      this.place.ordinal++;
    const fill = beforeIsFull ? before : null;
    this.#change(oid, raw, (encoder) => {
      const moved = before && keysOfMove(encoder, before, after, this.#scratch);
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
    if (erased) this.#expectErased(erased);
  }

  /** After the Tombstone's own Change, before whatever comes next. */
  #expectErased(row: ErasedRow): void {
    this.#erased.expect(row);
    if (!this.parking.holds(tableName(row.table)) && this.#erased.encoderOf(row.table) === undefined)
      this.unprepared = { table: row.table, for: 'erasures' };
  }

  /** Evicted rows that are erased: a delete, though there is no row in the source. Each has a Position, whatever becomes of it. */
  #writeErased(): void {
    for (const row of this.#erased.take()) {
      const name = tableName(row.table);
      if (this.parking.holds(name) && !this.#replaying) {
        if (!this.#next()) continue;
        const note = this.#tombstones.erasureNote(row);
        this.#records.parked(this.batch, this.#options.topics.parked, this.place.position, name, note);
        continue;
      }
      const encoder = this.#erased.encoderOf(row.table);
      const { ordinal } = this.place;
      this.batch.savepoint();
      try {
        if (!encoder) throw new TidemarkError('TM208', 'the table was never published');
        const before = this.#erased.tupleOf(encoder, row);
        this.#write(encoder, 'd', { before, after: null, fallback: null, fill: null });
      } catch (error) {
        this.batch.rollback();
        this.place.ordinal = ordinal;
        this.#next();
        this.#options.log.error(`a row of ${name} was erased, and its delete cannot be published`, {
          position: this.place.position,
          ...errorFields(error),
        });
      }
    }
  }

  delete(oid: number, before: Tuple, _beforeIsFull: boolean, raw: Buffer): void {
    this.#change(oid, raw, (encoder) => {
      const row = { before, after: null, fallback: null, fill: null };
      const key = this.#tombstones.any && !encoder.keyless ? encoder.keyTexts(before, null) : null;
      if (key && this.#tombstones.evicts(encoder.shape, key)) {
        this.#write(encoder, 'e', row);
        this.#tombstones.met(encoder.shape, key);
      } else this.#write(encoder, 'd', row);
    });
  }

  truncate(oids: number[], raw: Buffer): void {
    for (const oid of oids) {
      if (this.#replaying && !this.#isReplayed(oid)) continue;
      this.#change(oid, raw, (encoder) => {
        this.#options.snapshots.truncated(encoder.topic);
        if (this.#next()) this.#records.truncate(this.batch, this.place, encoder);
      });
    }
  }

  /** Logical messages are not rows of a tracked table: they are notes about them, or a snapshot's marks. */
  message(transactional: boolean, prefix: string, content: Buffer): void {
    if (!transactional) return;
    if (this.#replaying) this.#replayNote(prefix, content, parseTableName(this.parking.resuming!.table)!);
    this.#options.snapshots.message(prefix, content);
    const as = resumePolicy(prefix);
    if (as) this.#startResume(content.toString('utf8'), as);
    else if (prefix === shapeNotePrefix) {
      const note = parseShapeNote(content);
      const table = this.#tables.get(note.oid);
      // With the messages that it belongs to.
      if (table?.kind === 'parked' && !this.#replaying)
        this.#records.parked(
          this.batch,
          this.#options.topics.parked,
          null,
          table.name,
          parkedNote(this.#raw, content),
        );
      this.#tables.note(note);
    } else if (prefix === labelNotePrefix) this.#tables.describeAgain(parseLabelNote(content));
  }

  #replayNote(prefix: string, content: Buffer, table: TableId): void {
    if (this.#tombstones.replayed(prefix, content)) this.#expectEviction(table);
    const erased = this.#tombstones.erasedMeanwhile(prefix, content, table);
    if (!erased) return;
    this.#erased.expect(erased);
    if (this.#erased.encoderOf(table) === undefined) this.unprepared = { table, for: 'erasures' };
  }

  #startResume(table: string, as: ResumePolicy): void {
    if (!this.parking.startResume(table, as)) {
      this.#options.log.warn(`${table} was to be resumed and is not parked`, {
        position: this.place.position,
      });
      return;
    }
    this.#tables.forgetNotes(table);
    this.#options.log.info(`${table} is resumed: what was parked of it is published now`, {
      parkedAt: this.parking.get(table)!.position,
    });
  }

  #write(
    encoder: TableEncoder,
    op: 'c' | 'u' | 'd' | 'e' | 'r',
    row: RowImages,
    link: KeyLink | null = null,
  ): void {
    const { snapshots, topics } = this.#options;
    const fresh = this.#next();
    if (!fresh && snapshots.idle) return;
    const image = (row.after ?? row.before)!;
    const key = encoder.keyless ? null : this.#key;
    if (key) {
      key.position = 0;
      encoder.writeKey(image, row.fallback, key);
      if (!snapshots.idle) {
        const partial = row.after !== null && encoder.leavesUnknown(row.after, row.fill);
        snapshots.rowChanged(encoder.topic, key.bytes.subarray(0, key.position), {
          partial,
          moved: link?.name === header.oldKey,
          cursor: () => encoder.keyTexts(image, row.fallback),
        });
      }
    }
    if (!fresh) return;
    const topic = op === 'e' ? topics.evictions(encoder.shape) : encoder.topic;
    this.#records.row(this.batch, this.place, encoder, op, key, row, link, topic);
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
    const { ordinal } = this.place;
    this.batch.savepoint();
    try {
      write(table.encoder);
    } catch (error) {
      if (!parksTable(error)) throw error;
      this.batch.rollback();
      this.place.ordinal = ordinal;
      const name = tableName(table.encoder.shape);
      this.#startParking(name, error);
      this.#parkTable(table.relation, table.parking);
      this.#parkChange(name, table.parking.withhold(raw));
    }
  }

  #startParking(name: string, error: TidemarkError): void {
    const { place } = this;
    const position: Position = place.inTransaction ? place.upcoming : place.position;
    const { code, message: reason } = error;
    this.parking.park(name, { position, code, reason, moves: this.#tables.movesOf(name) });
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
    if (moves === null || this.place.upcoming >= position) return false;
    return changesAny(table, moves, before, after);
  }

  /** A Relation is not a Change: it has no Position of its own. */
  #parkTable(relation: Relation, parking: ParkedMessages): void {
    this.#records.parked(
      this.batch,
      this.#options.topics.parked,
      null,
      tableName(relation),
      this.#tables.park(relation, parking),
    );
  }

  /** @param raw a copy, without what is withheld */
  #parkChange(name: string, raw: Buffer): void {
    const { parked } = this.#options.topics;
    // Before the first delete that they may be about. A life that has it in Kafka has them there as well.
    const notes = raw[0] === deleteByte && this.#tombstones.any ? this.#tombstones.takeNotes(name) : [];
    if (!this.#next()) return;
    for (const note of notes) this.#records.parked(this.batch, parked, null, name, note);
    this.#records.parked(this.batch, parked, this.place.position, name, raw);
  }

  /** @returns false where Kafka has this Change already */
  #next(): boolean {
    if (!this.place.next()) return false;
    this.batch.changes++;
    return true;
  }
}
