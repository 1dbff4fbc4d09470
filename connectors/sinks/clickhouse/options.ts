/** The instance file's keys, and what they resolve to. */
import { readFileSync } from 'node:fs';
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { OptionField, OptionValues } from '../../../src/connector/sink.ts';

export const optionFields = {
  'clickhouse.url': {
    type: 'string',
    description: 'HTTP interface of the server: `https://host:8443` or `http://host:8123`.',
  },
  'clickhouse.database': {
    type: 'string',
    description:
      'Database for the tables of this destination; made where it is missing. One per destination is best.',
  },
  'clickhouse.user': { type: 'secret', description: 'User; unset: `default`.', default: null },
  'clickhouse.password': { type: 'secret', description: 'Password of that user.', default: null },
  'tls.mode': {
    type: 'string',
    description: 'For https: verify-full checks certificate and host name, require only encrypts.',
    default: 'verify-full',
    oneOf: ['require', 'verify-full'],
  },
  'tls.ca': {
    type: 'string',
    description: 'Path of the authority’s certificate (PEM); unset: the system’s.',
    default: null,
  },
  'tls.cert': { type: 'string', description: 'Path of the client certificate (PEM).', default: null },
  'tls.key': { type: 'string', description: 'Path of the client key (PEM).', default: null },
  history: {
    type: 'boolean',
    description: 'Also keep every Change, append-only, behind the view `<schema>.<table>_changes`.',
    default: false,
  },
  'low.cardinality': {
    type: 'list',
    description:
      'Text columns with few different values, as `schema.table.column`: they become LowCardinality (enums are anyway).',
    default: null,
  },
  'request.timeout': {
    type: 'duration',
    description: 'A single statement may take this long.',
    default: 600_000,
  },
  'insert.block.bytes': {
    type: 'bytes',
    description: 'Rows are sent in blocks of about so many bytes; three are in memory at once.',
    default: 8 * 1024 * 1024,
  },
} as const satisfies Record<string, OptionField>;

export interface ClickHouseSettings {
  url: string;
  database: string;
  user: string;
  password: string;
  tls: { verify: boolean; ca: Buffer | null; cert: Buffer | null; key: Buffer | null } | null;
  history: boolean;
  lowCardinality: ReadonlySet<string>;
  requestTimeoutMs: number;
  blockBytes: number;
}

/** @throws TidemarkError TM101, TM102 naming the key; never a value. */
export function resolveSettings(options: OptionValues): ClickHouseSettings {
  const address = text(options, 'clickhouse.url');
  if (address === null || !URL.canParse(address)) throw wrong('clickhouse.url', 'is not a URL');
  const url = new URL(address);
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    throw wrong('clickhouse.url', 'must start with http:// or https://');
  if (url.username !== '' || url.password !== '')
    throw wrong('clickhouse.url', 'must hold no credentials; use clickhouse.user and clickhouse.password');
  const database = text(options, 'clickhouse.database');
  if (database === null) throw wrong('clickhouse.database', 'is required');
  const secure = url.protocol === 'https:';
  return {
    url: url.origin,
    database,
    user: text(options, 'clickhouse.user') ?? 'default',
    password: text(options, 'clickhouse.password') ?? '',
    tls: secure
      ? {
          verify: text(options, 'tls.mode') !== 'require',
          ca: pem(options, 'tls.ca'),
          cert: pem(options, 'tls.cert'),
          key: pem(options, 'tls.key'),
        }
      : null,
    history: options.history === true,
    lowCardinality: new Set((options['low.cardinality'] ?? []) as string[]),
    requestTimeoutMs: Number(options['request.timeout'] ?? 600_000),
    blockBytes: Math.max(64 * 1024, Number(options['insert.block.bytes'] ?? 8 * 1024 * 1024)),
  };
}

function wrong(key: string, why: string): TidemarkError {
  return new TidemarkError('TM101', `${key} ${why}`);
}

function text(options: OptionValues, key: keyof typeof optionFields): string | null {
  const value = options[key];
  return typeof value === 'string' && value !== '' ? value : null;
}

function pem(options: OptionValues, key: keyof typeof optionFields): Buffer | null {
  const path = text(options, key);
  if (path === null) return null;
  try {
    return readFileSync(path);
  } catch (error) {
    throw new TidemarkError('TM102', `${key}: the file cannot be read`, { cause: error });
  }
}
