/** Endpoints of one section (source, control, kafka, registry) from its values. */
import { resolve as resolvePath } from 'node:path';
import { TidemarkError } from '../errors.ts';
import { defaultTlsMode, isSocketFolder, type PostgresUrl, parsePostgresUrl } from '../postgres-endpoint.ts';
import type {
  Compatibility,
  KafkaConfig,
  PostgresEndpoint,
  RegistryConfig,
  ResolvedTls,
} from '../resolved-config.ts';
import { withoutPrefix } from './field.ts';
import type { ConfigurationValues } from './fields.ts';
import type { Report } from './problems.ts';
import { resolveTls, type TlsMode } from './tls.ts';

export interface SectionContext {
  values: ConfigurationValues;
  /** Keys without a usable value; what depends on them is not looked at. */
  failed: ReadonlySet<string>;
  /** Keys that the file sets. */
  given: ReadonlyMap<string, number>;
  /** Of tidemark.yaml, for relative paths in a URL. */
  directory: string;
  report: Report;
}

type TlsKeys = {
  'tls.mode': TlsMode | null;
  'tls.ca': string | null;
  'tls.cert': string | null;
  'tls.key': string | null;
  'tls.key.passphrase': string | null;
  'tls.server.name': string | null;
};

/** TLS of a section; `fallback` where tls.mode is absent. */
function sectionTls(
  section: string,
  keys: TlsKeys,
  fallback: TlsMode,
  { failed, report, given }: SectionContext,
): Promise<ResolvedTls> {
  if ([...failed].some((key) => key.startsWith(`${section}.tls.`))) return Promise.resolve(false);
  const settings = {
    mode: keys['tls.mode'] ?? fallback,
    ca: keys['tls.ca'],
    cert: keys['tls.cert'],
    key: keys['tls.key'],
    passphrase: keys['tls.key.passphrase'],
    serverName: keys['tls.server.name'],
  };
  return resolveTls(settings, (setting, text) => {
    const key = `${section}.tls.${setting}`;
    report(key, text, given.get(key) ?? null);
  });
}

/** The endpoint of `source` or `control`. Reports; what it returns then is not to be used. */
export async function postgresEndpoint(
  section: 'source' | 'control',
  context: SectionContext,
): Promise<PostgresEndpoint> {
  const { failed, given, report } = context;
  const keys =
    section === 'source' ? withoutPrefix('source', context.values) : withoutPrefix('control', context.values);
  const place = (name: string): number | null => given.get(`${section}.${name}`) ?? null;
  let url: PostgresUrl | null = null;
  if (keys.url !== null && !failed.has(`${section}.url`)) {
    try {
      url = parsePostgresUrl(keys.url);
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      report(`${section}.url`, error.message, place('url'));
      return failedEndpoint;
    }
    for (const name of ['host', 'port', 'database', 'user'] as const) {
      if (keys[name] !== null)
        report(`${section}.${name}`, `is set beside ${section}.url; use one of them`, place(name));
    }
    if (keys.password !== null && url.password) {
      report(
        `${section}.password`,
        `is set, and ${section}.url has a password too; use one of them`,
        place('password'),
      );
    }
  }
  const tlsFromUrl = url !== null && Object.values(url.tls).some((value) => value !== null);
  const tlsFromKeys = Object.entries(keys).some(([key, value]) => key.startsWith('tls.') && value !== null);
  if (tlsFromUrl && tlsFromKeys) {
    report(
      `${section}.url`,
      `has ssl parameters, and ${section}.tls.* is set too; use one of them`,
      place('url'),
    );
  }
  const absolute = (path: string | null): string | null =>
    path === null ? null : resolvePath(context.directory, path);
  const tlsKeys: TlsKeys =
    url !== null && tlsFromUrl
      ? {
          'tls.mode': url.tls.mode,
          'tls.ca': absolute(url.tls.ca),
          'tls.cert': absolute(url.tls.cert),
          'tls.key': absolute(url.tls.key),
          'tls.key.passphrase': url.tls.passphrase,
          'tls.server.name': null,
        }
      : keys;
  const user = url?.user ?? keys.user;
  if (user === null && !failed.has(`${section}.user`) && !failed.has(`${section}.url`)) {
    const text = url ? 'the Postgres URL names no user' : `is missing; set it, or ${section}.url`;
    report(`${section}.${url ? 'url' : 'user'}`, text, place(url ? 'url' : 'user'));
  }
  const host = url?.host ?? keys.host ?? 'localhost';
  if (isSocketFolder(host) && tlsKeys['tls.mode'] !== null && tlsKeys['tls.mode'] !== 'disable') {
    report(`${section}.tls.mode`, 'a Unix socket has no TLS; use disable', place('tls.mode'));
  }
  return {
    host,
    port: url?.port ?? keys.port ?? 5432,
    database: url?.database ?? keys.database ?? user ?? '',
    user: user ?? '',
    password: url?.password || keys.password,
    tls: await sectionTls(section, tlsKeys, defaultTlsMode(host), context),
  };
}

/** Stands in after a report, so that the other sections are still looked at. */
const failedEndpoint: PostgresEndpoint = {
  host: '',
  port: 0,
  database: '',
  user: '',
  password: null,
  tls: false,
};

/** TLS of Kafka. One broker beyond this machine is enough for the checked default. */
export function kafkaTls(context: SectionContext): Promise<ResolvedTls> {
  const keys = withoutPrefix('kafka', context.values);
  const hosts = (keys.brokers ?? []).map((broker) => broker.replace(/:\d+$/, '').replace(/^\[|\]$/g, ''));
  const local = hosts.every((host) => defaultTlsMode(host) === 'disable');
  return sectionTls('kafka', keys, local ? 'disable' : 'verify-full', context);
}

/** SASL of Kafka, or null for none. */
export function kafkaSasl({ values, failed, given, report }: SectionContext): KafkaConfig['sasl'] {
  const mechanism = values['kafka.sasl.mechanism'];
  if (mechanism === null) {
    if (failed.has('kafka.sasl.mechanism')) return null;
    for (const key of ['kafka.sasl.username', 'kafka.sasl.password'] as const) {
      if (values[key] !== null) {
        report(
          key,
          'is set without kafka.sasl.mechanism (plain, scram-sha-256 or scram-sha-512)',
          given.get(key),
        );
      }
    }
    return null;
  }
  for (const key of ['kafka.sasl.username', 'kafka.sasl.password'] as const) {
    if (values[key] === null && !failed.has(key))
      report(key, 'is missing: kafka.sasl.mechanism needs it', null);
  }
  const username = values['kafka.sasl.username'] ?? '';
  return { mechanism, username, password: values['kafka.sasl.password'] ?? '' };
}

/** The registry, with the credentials of the URL taken out of it. */
export async function registryConfig(context: SectionContext): Promise<RegistryConfig> {
  const { failed, given, report } = context;
  const keys = withoutPrefix('registry', context.values);
  const line = given.get('registry.url') ?? null;
  const nothing: RegistryConfig = { url: '', username: null, password: null, tls: false };
  if (failed.has('registry.url')) return nothing;
  let url: URL;
  let fromUrl: { username: string | null; password: string | null };
  try {
    url = new URL(keys.url);
    fromUrl = {
      username: decodeURIComponent(url.username) || null,
      password: decodeURIComponent(url.password) || null,
    };
  } catch {
    report('registry.url', 'is not a well-formed URL; percent-encode special characters', line);
    return nothing;
  }
  if (url.search !== '' || url.hash !== '') report('registry.url', 'must have no ? or # part', line);
  if (fromUrl.username !== null && keys.username !== null) {
    report(
      'registry.username',
      'is set, and registry.url has a name too; use one of them',
      given.get('registry.username'),
    );
  }
  if (fromUrl.password !== null && keys.password !== null) {
    report(
      'registry.password',
      'is set, and registry.url has a password too; use one of them',
      given.get('registry.password'),
    );
  }
  url.username = '';
  url.password = '';
  const username = fromUrl.username ?? keys.username;
  const password = fromUrl.password ?? keys.password;
  const incomplete = (username === null) !== (password === null);
  if (incomplete && !failed.has('registry.username') && !failed.has('registry.password')) {
    report('registry.username', 'and registry.password belong together; one of them is missing', line);
  }
  const secure = url.protocol === 'https:';
  const mode = keys['tls.mode'];
  if (mode !== null && (mode !== 'disable') !== secure) {
    const text = secure ? 'is disable, but registry.url is https' : 'is set, but registry.url is http';
    report('registry.tls.mode', text, given.get('registry.tls.mode'));
  }
  const tls = await sectionTls('registry', keys, secure ? 'verify-full' : 'disable', context);
  return {
    url: url.href.replace(/\/+$/, ''),
    username,
    password,
    tls,
    compatibility: keys.compatibility as Compatibility,
  };
}
