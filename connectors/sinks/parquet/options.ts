/** The instance file's keys of the parquet sink, and the type they are parsed into once. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { OptionField, OptionValues } from '../../../src/connector/sink.ts';
import {
  type CompactionChoice,
  compactionFields,
  compactionFrom,
} from '../../object-log/compaction-options.ts';
import type { FileEncoderSettings } from '../../object-log/data-file.ts';
import { type Location, locationFields, locationFrom } from '../../object-log/location.ts';
import { type DateChoice, dateField } from '../../object-log/partition.ts';

export type EncoderName = 'duckdb' | 'parquetjs';
export type Compression = 'zstd' | 'snappy' | 'gzip' | 'none';

export const urlKey = 'parquet.url';
export const memoryKey = 'parquet.memory.bytes';

export const parquetOptionFields: Record<string, OptionField> = {
  ...locationFields(urlKey),
  'parquet.encoder': {
    type: 'string',
    description:
      'What writes the files. `parquetjs` is slower, has no DECIMAL and no UUID (they become text), and exists for machines where DuckDB cannot run.',
    default: 'duckdb',
    oneOf: ['duckdb', 'parquetjs'],
  },
  'parquet.compression': {
    type: 'string',
    description:
      'Compression of the column chunks. Unset: zstd with duckdb, snappy with parquetjs (which has no zstd).',
    default: null,
    oneOf: ['zstd', 'snappy', 'gzip', 'none'],
  },
  'parquet.memory.bytes': {
    type: 'bytes',
    description:
      "Cap of DuckDB's memory per destination, in bytes; at least eight times the largest row. Ordinary rows need far less: writing stages an eighth of it at a time, reading back may use half of it (at least 256 MiB, and 320 KiB for every column) before it goes to disk.",
    default: 512 * 1024 * 1024,
  },
  'parquet.row.group.rows': {
    type: 'integer',
    description: 'Rows per row group (parquetjs: at most 5,000).',
    default: 20_000,
  },
  'partition.date': dateField(),
  ...compactionFields(),
};

export interface ParquetOptions {
  location: Location;
  encoder: EncoderName;
  compression: Compression;
  memoryBytes: number;
  rowGroupRows: number;
  dates: DateChoice;
  compaction: CompactionChoice;
}

function refuse(key: string, why: string): never {
  throw new TidemarkError('TM101', `${key}: ${why}`);
}

/** @throws TidemarkError TM101 naming the key that does not fit. */
export function parquetOptionsFrom(values: OptionValues): ParquetOptions {
  const text = (key: string): string | null => {
    const value = values[key];
    return typeof value === 'string' && value !== '' ? value : null;
  };
  const encoder = (text('parquet.encoder') ?? 'duckdb') as EncoderName;
  const compression = (text('parquet.compression') ??
    (encoder === 'duckdb' ? 'zstd' : 'snappy')) as Compression;
  if (encoder === 'parquetjs' && compression === 'zstd') {
    refuse('parquet.compression', 'parquetjs cannot write zstd; use snappy, gzip or none');
  }
  const memoryBytes = Number(values['parquet.memory.bytes'] ?? 512 * 1024 * 1024);
  if (!(memoryBytes >= 32 * 1024 * 1024)) refuse('parquet.memory.bytes', 'needs at least 32 MiB');
  const rowGroupRows = Number(values['parquet.row.group.rows'] ?? 20_000);
  if (!(rowGroupRows >= 1)) refuse('parquet.row.group.rows', 'needs at least 1');
  const location = locationFrom(values, urlKey);
  const compaction = compactionFrom(values);
  const dates = text('partition.date') ?? 'auto';
  return { location, encoder, compression, memoryBytes, rowGroupRows, dates, compaction };
}

/** What both encoders need to know. */
export interface EncoderSettings extends FileEncoderSettings {
  compression: Compression;
  memoryBytes: number;
  rowGroupRows: number;
}
