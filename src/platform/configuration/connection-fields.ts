/** Keys that several sections of fields.ts share: TLS, and the connection to a Postgres. */
import type { FieldTable } from './field.ts';

const tlsModes = ['disable', 'require', 'verify-ca', 'verify-full'] as const;

/** The keys of TLS, on every connection. */
export const tlsFields = {
  'tls.mode': {
    type: 'string',
    unit: 'mode',
    default: null,
    oneOf: tlsModes,
    defaultText: '`disable` for localhost, loopback addresses and Unix sockets, else `verify-full`',
    description:
      'How the connection is secured. `require` encrypts without checking the server (with tls.ca it is `verify-ca`), `verify-ca` checks the certificate chain, `verify-full` also the server name.',
  },
  'tls.ca': {
    type: 'path',
    unit: 'PEM file',
    default: null,
    description: 'Certificate authorities to trust instead of those that Node brings. Read at start.',
  },
  'tls.cert': {
    type: 'path',
    unit: 'PEM file',
    default: null,
    description: 'Client certificate (and chain) for mutual TLS. Read at start.',
  },
  'tls.key': {
    type: 'path',
    unit: 'PEM file',
    default: null,
    description: 'Private key of tls.cert. Read at start.',
  },
  'tls.key.passphrase': {
    type: 'secret',
    unit: 'secret',
    default: null,
    description: 'Passphrase of tls.key.',
  },
  'tls.server.name': {
    type: 'string',
    unit: 'host name',
    default: null,
    defaultText: 'the host connected to',
    description: "Name to expect in the server's certificate.",
  },
} as const satisfies FieldTable;

/** The keys of a Postgres connection. */
export const endpointFields = {
  url: {
    type: 'secret',
    unit: 'URL',
    default: null,
    description:
      '`postgres://user:password@host:port/database?sslmode=verify-full`; `?host=/path` for a Unix socket. Percent-encode special characters. Either this, or host, port, database and user.',
  },
  host: {
    type: 'string',
    unit: 'host name',
    default: null,
    defaultText: 'localhost',
    description: 'Host name or address, or the absolute path of a Unix socket folder.',
  },
  port: {
    type: 'integer',
    unit: 'TCP port',
    default: null,
    defaultText: '5432',
    min: 1,
    max: 65535,
    description: 'Port of the server.',
  },
  database: {
    type: 'string',
    unit: 'name',
    default: null,
    defaultText: 'the user name',
    description: 'Database to connect to.',
  },
  user: {
    type: 'string',
    unit: 'name',
    default: null,
    defaultText: 'none; required without url',
    description: 'Role to connect as.',
  },
  password: {
    type: 'secret',
    unit: 'secret',
    default: null,
    description: 'Password of the role. May stand beside a url that has none.',
  },
  ...tlsFields,
} as const satisfies FieldTable;
