/** Postgres URLs, and endpoints as the pg package wants them. */
import { resolve as resolvePath } from 'node:path';
import type { ClientConfig } from 'pg';
import { resolveTls, type TlsMode, type TlsSettings } from './configuration/tls.ts';
import { TidemarkError } from './errors.ts';
import type { PostgresEndpoint } from './resolved-config.ts';

/** A URL taken apart; what it does not say is null. */
export interface PostgresUrl {
  host: string | null;
  port: number | null;
  database: string | null;
  user: string | null;
  password: string | null;
  /** From sslmode, sslrootcert, sslcert, sslkey, sslpassword. Paths as written. */
  tls: Omit<TlsSettings, 'mode'> & { mode: TlsMode | null };
}

const urlParameters = [
  'host',
  'port',
  'dbname',
  'user',
  'password',
  'sslmode',
  'sslrootcert',
  'sslcert',
  'sslkey',
  'sslpassword',
] as const;

/**
 * Takes a `postgres://` or `postgresql://` URL apart (libpq manual, "Connection URIs"), with one host. Percent
 * escapes are decoded in every part; `?host=/folder` and `%2Ffolder` mean a Unix socket.
 * @throws TM101; the message never holds a part of the URL, which may hold the password at any place when mistyped.
 */
export function parsePostgresUrl(url: string): PostgresUrl {
  // The URL class refuses `postgres://user:password@/db?host=/folder`, so the grammar is here.
  const match = url.match(/^postgres(?:ql)?:\/\/(?:([^@/?#]*)@)?([^/?#]*)(?:\/([^/?#]*))?(?:\?([^#]*))?$/);
  if (!match) throw unfit('is not of the form postgres://user:password@host:port/database?parameters');
  const [, userInfo = '', authority = '', path = '', query = ''] = match;
  const parameters = parseParameters(query);

  const colon = userInfo.indexOf(':');
  const user = decode(colon < 0 ? userInfo : userInfo.slice(0, colon), 'user');
  const password = colon < 0 ? null : decode(userInfo.slice(colon + 1), 'password');

  const place = authority.match(/^(?:\[([0-9A-Fa-f:.]+)\]|([^:@[\],]*))(?::(\d{0,5}))?$/);
  if (!place) {
    throw unfit(
      'has a host part that is not one host with an optional port; percent-encode @, :, / and , elsewhere',
    );
  }
  const host = place[1] ?? decode(place[2] ?? '', 'host');
  const portText = parameters.get('port') ?? (place[3] || null);
  const port = portText === null ? null : Number(portText);
  if (port !== null && !(/^\d+$/.test(portText!) && port >= 1 && port <= 65535)) {
    throw unfit('has a port that is not a number from 1 to 65535');
  }
  const result: PostgresUrl = {
    host: parameters.get('host') ?? (host || null),
    port,
    database: parameters.get('dbname') ?? (decode(path, 'database') || null),
    user: parameters.get('user') ?? (user || null),
    password: parameters.get('password') ?? password,
    tls: {
      mode: tlsMode(parameters.get('sslmode') ?? null),
      ca: parameters.get('sslrootcert') ?? null,
      cert: parameters.get('sslcert') ?? null,
      key: parameters.get('sslkey') ?? null,
      passphrase: parameters.get('sslpassword') ?? null,
      serverName: null,
    },
  };
  if (result.host?.includes(',')) throw unfit('names more than one host');
  for (const part of [result.host, result.database, result.user, result.password]) {
    if (part?.includes('\0')) throw unfit('has a zero byte in it');
  }
  return result;
}

function parseParameters(query: string): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const pair of query === '' ? [] : query.split('&')) {
    const equals = pair.indexOf('=');
    const name = urlParameters.find((known) => known === (equals < 0 ? pair : pair.slice(0, equals)));
    if (!name || equals < 0) throw unfit(`has a parameter other than ${urlParameters.join(', ')}`);
    if (parameters.has(name)) throw unfit(`has the parameter ${name} twice`);
    parameters.set(name, decode(pair.slice(equals + 1), name));
  }
  return parameters;
}

function tlsMode(sslmode: string | null): TlsMode | null {
  const modes: (string | null)[] = [
    null,
    'disable',
    'require',
    'verify-ca',
    'verify-full',
  ] satisfies (TlsMode | null)[];
  if (modes.includes(sslmode)) return sslmode as TlsMode | null;
  // allow and prefer leave it to the server, or to whoever stands between, whether anything is encrypted.
  throw unfit('has an sslmode other than disable, require, verify-ca and verify-full');
}

/** decodeURIComponent with an error that does not repeat the text. `+` stays a plus, as in libpq. */
function decode(text: string, part: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw unfit(`has a broken %-escape in its ${part}; write a plain % as %25`);
  }
}

function unfit(text: string): TidemarkError {
  return new TidemarkError('TM101', `the Postgres URL ${text}`);
}

/**
 * A whole endpoint from a URL alone, for the connections of sinks. Without an sslmode, TLS is as
 * defaultTlsMode says. Its files are read here, relative paths from `directory`.
 * @throws TM101 without any part of the URL.
 */
export async function endpointFromUrl(url: string, directory = '.'): Promise<PostgresEndpoint> {
  const parts = parsePostgresUrl(url);
  if (parts.user === null) throw unfit('names no user');
  const absolute = (path: string | null): string | null =>
    path === null ? null : resolvePath(directory, path);
  const { mode, ca, cert, key, ...tls } = parts.tls;
  const host = parts.host ?? 'localhost';
  const settings = {
    ...tls,
    mode: mode ?? defaultTlsMode(host),
    ca: absolute(ca),
    cert: absolute(cert),
    key: absolute(key),
  };
  const faults: string[] = [];
  const resolvedTls = await resolveTls(settings, (setting, text) => faults.push(`tls.${setting} ${text}`));
  if (isSocketFolder(host) && settings.mode !== 'disable') faults.push('a Unix socket has no TLS');
  if (faults.length > 0) throw unfit(`cannot be used: ${faults.join('; ')}`);
  return {
    host,
    port: parts.port ?? 5432,
    database: parts.database ?? parts.user,
    user: parts.user,
    password: parts.password || null,
    tls: resolvedTls,
  };
}

export function isSocketFolder(host: string): boolean {
  return host.startsWith('/');
}

/** TLS where nothing was chosen: none for traffic that stays on this machine, everything checked for the rest. */
export function defaultTlsMode(host: string): TlsMode {
  const local =
    isSocketFolder(host) || host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
  return local ? 'disable' : 'verify-full';
}

export interface ClientOptions {
  /** Shown in pg_stat_activity. */
  applicationName: string;
  /** Default 10 seconds. */
  connectTimeoutMs?: number;
  /** Server-side limits; absent: the server's own setting. */
  statementTimeoutMs?: number;
  lockTimeoutMs?: number;
  idleInTransactionTimeoutMs?: number;
  /** Command-line options for the session, as in PGOPTIONS: `-c search_path=tidemark`. */
  sessionOptions?: string;
}

/** The endpoint for `new Client(…)` and `new Pool(…)` of pg. PGHOST, PGPASSWORD, PGSSLMODE and .pgpass have no say. */
export function clientConfig(endpoint: PostgresEndpoint, options: ClientOptions): ClientConfig {
  const { statementTimeoutMs, lockTimeoutMs, idleInTransactionTimeoutMs, sessionOptions } = options;
  return {
    host: endpoint.host,
    port: endpoint.port,
    database: endpoint.database,
    user: endpoint.user,
    // Without a password pg would look into the environment and ~/.pgpass. A function is asked only if the server asks.
    password: endpoint.password ?? (() => ''),
    // A copy, because pg makes `key` of the object it is given non-enumerable, and the next copy would lack it.
    ssl: endpoint.tls === false ? false : { ...endpoint.tls },
    application_name: options.applicationName,
    connectionTimeoutMillis: options.connectTimeoutMs ?? 10_000,
    // Finds connections that a firewall dropped while they were idle.
    keepAlive: true,
    keepAliveInitialDelayMillis: 30_000,
    ...(statementTimeoutMs === undefined ? {} : { statement_timeout: statementTimeoutMs }),
    ...(lockTimeoutMs === undefined ? {} : { lock_timeout: lockTimeoutMs }),
    ...(idleInTransactionTimeoutMs === undefined
      ? {}
      : { idle_in_transaction_session_timeout: idleInTransactionTimeoutMs }),
    ...(sessionOptions === undefined ? {} : { options: sessionOptions }),
  };
}
