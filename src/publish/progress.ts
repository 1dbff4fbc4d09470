/** Progress records: their shape in memory and their bytes (avro/progress.avsc in the registry's wire format). */
import { readFileSync } from 'node:fs';
import avsc from 'avsc';
import type { Position } from '../connector/position.ts';
import { asPosition } from '../connector/position.ts';
import { TidemarkError } from '../platform/errors.ts';
import { ByteReader } from './byte-writer.ts';
import { RecordRun } from './record-run.ts';

export interface ParkedTable {
  position: Position;
  code: string;
  reason: string;
  /** Columns whose change made an update two Changes before; empty: every update did; null: the table never was published. */
  moves: string[] | null;
}

/** Where a table's snapshot stands. What lies at or before the cursor is in Kafka, except `again`. */
export interface SnapshotState {
  /** Of the request. */
  id: string;
  /**
   * Where the scan stands; null: at the start. In the order of the key, the last one read, as Postgres' text and in the
   * order of the table's columns; in the order on disk, the row address that comes next.
   */
  cursor: string[] | null;
  /** The end was reached. */
  read: boolean;
  /** Rows published. */
  rows: bigint;
  /** Keys to be read once more. */
  again: string[][];
  /** The table and the order that the cursor is of (scan-order.ts); null: not known yet. */
  key: string | null;
  /**
   * Position just before the first chunk: rows with an older newest state are not in the source when a snapshot of the
   * whole table ends. null: it is not of the whole table.
   */
  since: Position | null;
  /** Position at which it ended; null: it goes on. */
  until: Position | null;
  /** Registry id of the value schema of the last chunk. */
  schemaId: number | null;
  /** Whom it is for; null: all. */
  destination: string | null;
}

/** Nothing was read yet. */
export function newSnapshot(
  id: string,
  { since, destination }: Pick<SnapshotState, 'since' | 'destination'>,
): SnapshotState {
  return {
    id,
    cursor: null,
    read: false,
    rows: 0n,
    again: [],
    key: null,
    since,
    until: null,
    schemaId: null,
    destination,
  };
}

export interface Progress {
  kind: 'origin' | 'batch' | 'heartbeat' | 'fence';
  sourceId: string;
  position: Position;
  boundary: boolean;
  /** First WAL byte that the slot still has to keep. */
  ackLsn: bigint;
  /** Running maximum of commit times, microseconds since 1970 UTC. */
  commitTimeUs: bigint;
  writtenAtUs: bigint;
  systemIdentifier: string;
  timeline: number;
  writer: string;
  /** Topic to end offset per partition. */
  endOffsets: Record<string, bigint[]>;
  parked: Record<string, ParkedTable>;
  /** Snapshots that are not over, by topic. */
  snapshots: Record<string, SnapshotState>;
}

export const progressFormat = 3;

export const progressSchema = readFileSync(new URL('../../avro/progress.avsc', import.meta.url), 'utf8');

/** Longs as bigint: an offset or an LSN may pass 2^53 in principle and must never round. */
const longType = avsc.types.LongType.__with({
  fromBuffer: (bytes: Buffer) => bytes.readBigInt64LE(),
  toBuffer: (value: bigint) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(value);
    return bytes;
  },
  fromJSON: BigInt,
  toJSON: Number,
  isValid: (value: unknown) => typeof value === 'bigint',
  compare: (a: bigint, b: bigint) => (a < b ? -1 : a > b ? 1 : 0),
});

const progressType = typeOf(JSON.parse(progressSchema) as ProgressSchema);

/** What a snapshot's state has since format 3. */
const laterState = { key: null, since: null, until: null, schemaId: null, destination: null };

/** Format 1 had no snapshots, format 2 less in them. */
const earlierTypes: Record<number, avsc.Type> = {
  1: typeOf(withoutField(JSON.parse(progressSchema) as ProgressSchema, 'snapshots')),
  2: typeOf(withShortSnapshots(JSON.parse(progressSchema) as ProgressSchema)),
};

type ProgressSchema = avsc.schema.RecordType;

function typeOf(schema: ProgressSchema): avsc.Type {
  return avsc.Type.forSchema(schema, { registry: { long: longType } });
}

function withoutField(schema: ProgressSchema, name: string): ProgressSchema {
  return { ...schema, fields: schema.fields.filter((field) => field.name !== name) };
}

function withShortSnapshots(schema: ProgressSchema): ProgressSchema {
  return {
    ...schema,
    fields: schema.fields.map((field) => {
      if (field.name !== 'snapshots') return field;
      const map = field.type as { type: 'map'; values: ProgressSchema };
      const values = Object.keys(laterState).reduce(withoutField, map.values);
      return { ...field, type: { ...map, values } };
    }),
  };
}

/** @param schemaId id of progressSchema under `<prefix>.progress-value`. */
export function encodeProgress(progress: Progress, schemaId: number): Buffer {
  const body = progressType.toBuffer({ format: progressFormat, ...progress });
  const bytes = Buffer.alloc(5 + body.length);
  bytes.writeUInt32BE(schemaId, 1);
  body.copy(bytes, 5);
  return bytes;
}

/** As it is written to the progress topic. */
export function progressRecord(topic: string, progress: Progress, schemaId: number): RecordRun {
  const run = new RecordRun(topic, 0);
  run.add(Buffer.from(progress.sourceId), encodeProgress(progress, schemaId), []);
  return run;
}

/** @throws TidemarkError TM206 when the bytes are not a Progress of a known format. */
export function decodeProgress(bytes: Buffer): Progress {
  if (bytes.length < 6 || bytes[0] !== 0)
    throw new TidemarkError('TM206', 'a record in the progress topic is not in the registry wire format');
  // The first field, read by itself: another format may have other fields.
  const format = new ByteReader(bytes, 5).long();
  if (format !== progressFormat && !(format in earlierTypes)) {
    throw new TidemarkError(
      'TM206',
      `the progress topic has format ${format}, this version reads 1 to ${progressFormat}`,
      {
        remedy: 'Run the version of Tidemark that wrote it, or a newer one.',
      },
    );
  }
  try {
    const type = earlierTypes[format] ?? progressType;
    const { format: _, ...progress } = type.fromBuffer(bytes.subarray(5)) as Progress & { format: number };
    asPosition(progress.position);
    for (const { position } of Object.values(progress.parked)) asPosition(position);
    return {
      ...progress,
      endOffsets: { ...progress.endOffsets },
      parked: { ...progress.parked },
      snapshots: Object.fromEntries(
        Object.entries(progress.snapshots ?? {}).map(([topic, state]) => [
          topic,
          { ...laterState, ...state },
        ]),
      ),
    };
  } catch (error) {
    throw new TidemarkError('TM206', 'a record in the progress topic is not a Progress', { cause: error });
  }
}
