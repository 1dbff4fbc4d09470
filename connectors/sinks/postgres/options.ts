/** The instance file's keys, and what they resolve to. */
import { isIP } from 'node:net';
import { type ConnectionOptions, checkServerIdentity } from 'node:tls';
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type PemPaths, readPemFiles } from '../../../src/connector/pem-files.ts';
import type { OptionField, OptionValues } from '../../../src/connector/sink.ts';
import { Placement } from './placement.ts';

export const optionFields = {
  'connection.url': {
    type: 'secret',
    description:
      'postgres://user:password@host:port/database?sslmode=verify-full; the other connection.* keys win over its parts.',
    default: null,
  },
  'connection.host': {
    type: 'string',
    description: 'Host name, address, or directory of a Unix socket.',
    default: null,
  },
  'connection.port': {
    type: 'integer',
    description: 'TCP port; 5432 unless the URL has one.',
    default: null,
  },
  'connection.database': { type: 'string', description: 'Database that becomes the replica.', default: null },
  'connection.user': { type: 'string', description: 'Role that owns the replica’s tables.', default: null },
  'connection.password': { type: 'secret', description: 'Password of that role.', default: null },
  'tls.mode': {
    type: 'string',
    description:
      'verify-full checks certificate and host name, require only encrypts. Unset: disable for a loopback address or a socket, else verify-full.',
    default: null,
    oneOf: ['disable', 'require', 'verify-full'],
  },
  'tls.ca': {
    type: 'string',
    description: 'Path of the authority’s certificate (PEM); unset: the system’s.',
    default: null,
  },
  'tls.cert': { type: 'string', description: 'Path of the client certificate (PEM).', default: null },
  'tls.key': { type: 'string', description: 'Path of the client key (PEM).', default: null },
  'statement.timeout': {
    type: 'duration',
    description: 'A single statement of a merge may take this long; 0 for no limit.',
    default: 0,
  },
  'lock.timeout': {
    type: 'duration',
    description:
      'How long a merge waits for a lock that a reader or another writer holds before it is retried.',
    default: 30_000,
  },
  'schema.map': {
    type: 'list',
    description:
      'Other names at the destination: `schema=schema` for a schema with its tables and types, `schema.table=schema.table` for one table, which goes before its schema. What is not here keeps its name.',
    default: null,
  },
  'soft.deletes': {
    type: 'boolean',
    description:
      'Keep deleted and truncated rows, with the time of deletion in a column that the source does not have.',
    default: false,
  },
  'soft.deletes.column': {
    type: 'string',
    description: 'Name of that column.',
    default: '_tidemark_deleted_at',
  },
  history: {
    type: 'boolean',
    description:
      'Beside every table keep its history: each Change with its operation, Position and commit time, in a table that only grows.',
    default: false,
  },
  'history.suffix': {
    type: 'string',
    description: 'A history’s name is that of its table and this.',
    default: '_changes',
  },
} as const satisfies Record<string, OptionField>;

export interface PostgresSettings {
  host: string;
  port: number;
  database: string;
  user: string;
  password: string | null;
  tls: ConnectionOptions | false;
  /** Milliseconds, 0 for none. */
  statementTimeoutMs: number;
  /** Milliseconds, 0 for none. */
  lockTimeoutMs: number;
  placement: Placement;
  /** Name of the column for the time of deletion; null where deleted rows go. */
  deletedAt: string | null;
  /** What a history's name ends in; null where none is kept. */
  historySuffix: string | null;
}

/** @throws TidemarkError TM101 naming the key; never a value. */
export function resolveSettings(options: OptionValues): PostgresSettings {
  const url = parseUrl(text(options, 'connection.url'));
  const host = text(options, 'connection.host') ?? url.host ?? 'localhost';
  const user = text(options, 'connection.user') ?? url.user;
  const database = text(options, 'connection.database') ?? url.database ?? user;
  if (!user || !database) {
    throw new TidemarkError('TM101', `${user ? 'connection.database' : 'connection.user'} is missing`, {
      remedy:
        'Set connection.url, or connection.host, connection.database, connection.user and connection.password.',
    });
  }
  const port = options['connection.port'] ?? url.port ?? 5432;
  return {
    host,
    port: Number(port),
    database,
    user,
    password: text(options, 'connection.password') ?? url.password,
    tls: resolveTls(host, {
      mode: text(options, 'tls.mode') ?? url.sslmode,
      ca: text(options, 'tls.ca') ?? url.sslrootcert,
      cert: text(options, 'tls.cert') ?? url.sslcert,
      key: text(options, 'tls.key') ?? url.sslkey,
    }),
    statementTimeoutMs: Number(options['statement.timeout'] ?? 0),
    lockTimeoutMs: Number(options['lock.timeout'] ?? 30_000),
    placement: Placement.parse(rules(options['schema.map'])),
    deletedAt:
      options['soft.deletes'] === true
        ? (text(options, 'soft.deletes.column') ?? optionFields['soft.deletes.column'].default)
        : null,
    historySuffix:
      options.history === true
        ? (text(options, 'history.suffix') ?? optionFields['history.suffix'].default)
        : null,
  };
}

function text(options: OptionValues, key: keyof typeof optionFields): string | null {
  const value = options[key];
  return typeof value === 'string' && value !== '' ? value : null;
}

function rules(value: OptionValues[string] | undefined): string[] {
  return Array.isArray(value) ? value : [];
}

const urlParameters = ['host', 'sslmode', 'sslrootcert', 'sslcert', 'sslkey'] as const;

function parseUrl(source: string | null) {
  const empty = { host: null, port: null, database: null, user: null, password: null };
  const none = { sslmode: null, sslrootcert: null, sslcert: null, sslkey: null };
  if (source === null) return { ...empty, ...none };
  // The parser's own error would quote the whole URL, password included.
  if (!URL.canParse(source)) throw new TidemarkError('TM101', 'connection.url is not a URL');
  const url = new URL(source);
  if (url.protocol !== 'postgres:' && url.protocol !== 'postgresql:') {
    throw new TidemarkError('TM101', 'connection.url does not start with postgres://');
  }
  for (const parameter of url.searchParams.keys()) {
    if (!(urlParameters as readonly string[]).includes(parameter)) {
      throw new TidemarkError('TM101', `connection.url: the parameter ${parameter} is not known`, {
        remedy: `Known parameters: ${urlParameters.join(', ')}.`,
      });
    }
  }
  const part = (value: string) => (value === '' ? null : decodeURIComponent(value));
  return {
    host: url.searchParams.get('host') ?? part(url.hostname.replace(/^\[(.*)\]$/, '$1')),
    port: url.port === '' ? null : Number(url.port),
    database: part(url.pathname.slice(1)),
    user: part(url.username),
    password: part(url.password),
    sslmode: url.searchParams.get('sslmode'),
    sslrootcert: url.searchParams.get('sslrootcert'),
    sslcert: url.searchParams.get('sslcert'),
    sslkey: url.searchParams.get('sslkey'),
  };
}

interface TlsFiles extends PemPaths {
  mode: string | null;
}

function resolveTls(host: string, files: TlsFiles): ConnectionOptions | false {
  const socket = host.startsWith('/');
  const local =
    socket || host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
  const mode = files.mode ?? (local ? 'disable' : 'verify-full');
  if (mode === 'disable' || socket) return false;
  if (mode !== 'require' && mode !== 'verify-full') {
    throw new TidemarkError('TM101', 'tls.mode (or sslmode) is not one of disable, require, verify-full');
  }
  const verify = mode === 'verify-full';
  return {
    rejectUnauthorized: verify,
    // The host that was configured is checked, also where it is an address and no server name is sent.
    checkServerIdentity: verify
      ? (_name, certificate) => checkServerIdentity(host, certificate)
      : () => undefined,
    ...readPemFiles(files),
  };
}
