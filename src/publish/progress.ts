/** Progress records: their shape in memory and their bytes (avro/progress.avsc in the registry's wire format). */
import { readFileSync } from 'node:fs';
import avsc from 'avsc';
import type { Position } from '../connector/position.ts';
import { asPosition } from '../connector/position.ts';
import { TidemarkError } from '../platform/errors.ts';
import { ByteReader } from './byte-writer.ts';

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
  /** Last key read, as Postgres' text, in the order of the table's columns; null: none yet. */
  cursor: string[] | null;
  /** The end was reached. */
  read: boolean;
  /** Rows published. */
  rows: bigint;
  /** Keys to be read once more. */
  again: string[][];
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

export const progressFormat = 2;

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

/** Format 1 had no snapshots. */
const formatOneType = typeOf(withoutField(JSON.parse(progressSchema) as ProgressSchema, 'snapshots'));

type ProgressSchema = avsc.schema.RecordType;

function typeOf(schema: ProgressSchema): avsc.Type {
  return avsc.Type.forSchema(schema, { registry: { long: longType } });
}

function withoutField(schema: ProgressSchema, name: string): ProgressSchema {
  return { ...schema, fields: schema.fields.filter((field) => field.name !== name) };
}

/** @param schemaId id of progressSchema under `<prefix>.progress-value`. */
export function encodeProgress(progress: Progress, schemaId: number): Buffer {
  const body = progressType.toBuffer({ format: progressFormat, ...progress });
  const bytes = Buffer.alloc(5 + body.length);
  bytes.writeUInt32BE(schemaId, 1);
  body.copy(bytes, 5);
  return bytes;
}

/** @throws TidemarkError TM206 when the bytes are not a Progress of a known format. */
export function decodeProgress(bytes: Buffer): Progress {
  if (bytes.length < 6 || bytes[0] !== 0)
    throw new TidemarkError('TM206', 'a record in the progress topic is not in the registry wire format');
  // The first field, read by itself: another format may have other fields.
  const format = new ByteReader(bytes, 5).long();
  if (format !== progressFormat && format !== 1) {
    throw new TidemarkError(
      'TM206',
      `the progress topic has format ${format}, this version reads 1 and ${progressFormat}`,
      {
        remedy: 'Run the version of Tidemark that wrote it, or a newer one.',
      },
    );
  }
  try {
    const type = format === 1 ? formatOneType : progressType;
    const { format: _, ...progress } = type.fromBuffer(bytes.subarray(5)) as Progress & { format: number };
    asPosition(progress.position);
    for (const { position } of Object.values(progress.parked)) asPosition(position);
    return {
      ...progress,
      endOffsets: { ...progress.endOffsets },
      parked: { ...progress.parked },
      snapshots: Object.fromEntries(
        Object.entries(progress.snapshots ?? {}).map(([topic, state]) => [topic, { ...state }]),
      ),
    };
  } catch (error) {
    throw new TidemarkError('TM206', 'a record in the progress topic is not a Progress', { cause: error });
  }
}
