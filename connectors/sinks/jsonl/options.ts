/** The instance file's keys of the jsonl sink, and the type they are parsed into once. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { OptionField, OptionValues } from '../../../src/connector/sink.ts';
import {
  type CompactionChoice,
  compactionFields,
  compactionFrom,
} from '../../object-log/compaction-options.ts';
import { type Location, locationFields, locationFrom } from '../../object-log/location.ts';
import { type DateChoice, dateField } from '../../object-log/partition.ts';

export type Compression = 'zstd' | 'gzip';

export const urlKey = 'jsonl.url';
export const memoryKey = 'jsonl.memory.bytes';
const defaultMemory = 512 * 1024 * 1024;

export const jsonlOptionFields: Record<string, OptionField> = {
  ...locationFields(urlKey),
  'jsonl.compression': {
    type: 'string',
    description: 'Compression of the files, each one stream: `zstd` (.jsonl.zst) or `gzip` (.jsonl.gz).',
    default: 'zstd',
    oneOf: ['zstd', 'gzip'],
  },
  [memoryKey]: {
    type: 'bytes',
    description:
      'Reading back (`verify`) may use half of it (at least 256 MiB, and 320 KiB for every column) before DuckDB goes to disk; at least eight times the largest row. Writing needs none of it.',
    default: defaultMemory,
  },
  'partition.date': dateField(),
  ...compactionFields(),
};

export interface JsonlOptions {
  location: Location;
  compression: Compression;
  memoryBytes: number;
  dates: DateChoice;
  compaction: CompactionChoice;
}

/** @throws TidemarkError TM101 naming the key that does not fit. */
export function jsonlOptionsFrom(values: OptionValues): JsonlOptions {
  const memoryBytes = Number(values[memoryKey] ?? defaultMemory);
  if (!(memoryBytes >= 32 * 1024 * 1024)) {
    throw new TidemarkError('TM101', `${memoryKey}: needs at least 32 MiB`);
  }
  return {
    location: locationFrom(values, urlKey),
    compression: (values['jsonl.compression'] ?? 'zstd') as Compression,
    memoryBytes,
    dates: String(values['partition.date'] ?? 'auto'),
    compaction: compactionFrom(values),
  };
}
