/** The instance file's keys of the parquet sink, and the type they are parsed into once. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { OptionField, OptionValues } from '../../../src/connector/sink.ts';

export type EncoderName = 'duckdb' | 'parquetjs';
export type Compression = 'zstd' | 'snappy' | 'gzip' | 'none';

export const parquetOptionFields: Record<string, OptionField> = {
  'parquet.url': {
    type: 'string',
    description:
      'Where the tables go: `s3://bucket/prefix` or `file:///absolute/directory`. One destination per URL; two must never share one.',
  },
  's3.endpoint': {
    type: 'string',
    description: 'URL of an S3-compatible server; unset for AWS.',
    default: null,
  },
  's3.region': { type: 'string', description: 'Region of the bucket.', default: 'us-east-1' },
  's3.access.key.id': {
    type: 'secret',
    description: "Access key id; unset to use the machine's own AWS identity.",
    default: null,
  },
  's3.secret.access.key': {
    type: 'secret',
    description: 'Secret of the access key id.',
    default: null,
  },
  's3.path.style': {
    type: 'boolean',
    description: 'Put the bucket into the path instead of the host name; most S3-compatible servers need it.',
    default: false,
  },
  's3.tls.ca': {
    type: 'string',
    description: "Path of a PEM file with the authority that signed the endpoint's certificate.",
    default: null,
  },
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
      "Cap of DuckDB's memory per destination, in bytes; at least eight times the largest row. Ordinary rows need far less: writing stages a thirty-second of it at a time, reading back may use half of it (at least 256 MiB) before it goes to disk.",
    default: 512 * 1024 * 1024,
  },
  'parquet.row.group.rows': {
    type: 'integer',
    description: 'Rows per row group (parquetjs: at most 5,000).',
    default: 20_000,
  },
};

export interface S3Target {
  kind: 's3';
  bucket: string;
  /** Without slashes at either end; empty for the bucket's root. */
  prefix: string;
  endpoint: string | null;
  region: string;
  credentials: { accessKeyId: string; secretAccessKey: string } | null;
  pathStyle: boolean;
  /** Path of a PEM file. */
  tlsCa: string | null;
}

export interface FileTarget {
  kind: 'file';
  /** Absolute, without a trailing slash. */
  directory: string;
}

export interface ParquetOptions {
  target: S3Target | FileTarget;
  encoder: EncoderName;
  compression: Compression;
  memoryBytes: number;
  rowGroupRows: number;
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
  return { target: targetFrom(values, text), encoder, compression, memoryBytes, rowGroupRows };
}

function targetFrom(values: OptionValues, text: (key: string) => string | null): S3Target | FileTarget {
  const url = text('parquet.url') ?? refuse('parquet.url', 'is required');
  const file = /^file:\/\/(\/.*)$/.exec(url);
  if (file) {
    const directory = file[1]!.replace(/\/+$/, '');
    if (directory === '') refuse('parquet.url', 'cannot be the root directory');
    // DuckDB would read these as glob patterns in the paths of the latest-state view.
    if (/[*?[\]]/.test(directory)) refuse('parquet.url', 'the directory must not contain * ? [ or ]');
    return { kind: 'file', directory };
  }
  const s3 = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/(.*))?$/.exec(url);
  if (!s3) return refuse('parquet.url', 'must be s3://bucket/prefix or file:///absolute/directory');
  const prefix = (s3[2] ?? '').replace(/^\/+|\/+$/g, '');
  if (!/^[A-Za-z0-9/._=-]*$/.test(prefix)) {
    refuse('parquet.url', 'the prefix may hold letters, digits and / . _ = - only');
  }
  const accessKeyId = text('s3.access.key.id');
  const secretAccessKey = text('s3.secret.access.key');
  if ((accessKeyId === null) !== (secretAccessKey === null)) {
    refuse('s3.access.key.id', 'and s3.secret.access.key go together');
  }
  return {
    kind: 's3',
    bucket: s3[1]!,
    prefix,
    endpoint: text('s3.endpoint'),
    region: text('s3.region') ?? 'us-east-1',
    credentials: accessKeyId && secretAccessKey ? { accessKeyId, secretAccessKey } : null,
    pathStyle: values['s3.path.style'] === true,
    tlsCa: text('s3.tls.ca'),
  };
}
