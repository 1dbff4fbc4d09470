/** The keys of an instance file that say which catalog it is, and what they resolve to. */
import { TidemarkError } from '../../../../src/connector/failure.ts';
import type { OptionField, OptionValues } from '../../../../src/connector/sink.ts';
import type { TlsFiles } from './http-exchange.ts';
import type { AwsCredentials } from './sigv4.ts';

const optional = { default: null } as const;

export const catalogFields = {
  'iceberg.catalog.type': {
    type: 'string',
    description:
      '`rest`: an Iceberg REST catalog (Polaris, Nessie, Lakekeeper, S3 Tables, Glue’s REST endpoint); `glue`: AWS Glue by its own API.',
    default: 'rest',
    oneOf: ['rest', 'glue'],
  },
  'iceberg.catalog.uri': {
    type: 'string',
    description:
      'Of a REST catalog, without `/v1`. For `glue` the endpoint, where it is not the region’s own.',
    ...optional,
  },
  'iceberg.catalog.warehouse': {
    type: 'string',
    description:
      'Which of the server’s catalogs or warehouses it is. For `glue` the location below which tables go: `s3://bucket/prefix`.',
    ...optional,
  },
  'iceberg.catalog.prefix': {
    type: 'string',
    description: 'Part of the paths after `/v1/`, where the server does not tell it by itself.',
    ...optional,
  },
  'iceberg.catalog.auth': {
    type: 'string',
    description: 'How requests prove who sends them.',
    default: 'none',
    oneOf: ['none', 'bearer', 'oauth2', 'sigv4'],
  },
  'iceberg.catalog.token': { type: 'secret', description: 'For `bearer`.', ...optional },
  'iceberg.catalog.oauth2.token.url': {
    type: 'string',
    description: 'Token endpoint; unset: `/v1/oauth/tokens` of the catalog.',
    ...optional,
  },
  'iceberg.catalog.oauth2.client.id': { type: 'secret', description: 'Client id.', ...optional },
  'iceberg.catalog.oauth2.client.secret': { type: 'secret', description: 'Client secret.', ...optional },
  'iceberg.catalog.oauth2.scope': {
    type: 'string',
    description: 'Scope to ask for; Polaris wants `PRINCIPAL_ROLE:ALL`.',
    default: 'catalog',
  },
  'iceberg.catalog.oauth2.audience': { type: 'string', description: 'Audience to ask for.', ...optional },
  'iceberg.catalog.oauth2.resource': { type: 'string', description: 'Resource to ask for.', ...optional },
  'iceberg.catalog.sigv4.signing.name': {
    type: 'string',
    description: 'Service that requests are signed for: `glue`, `s3tables`, …',
    default: 'glue',
  },
  'iceberg.catalog.sigv4.region': {
    type: 'string',
    description: 'Region that requests are signed for, and of `glue`.',
    default: 'us-east-1',
  },
  'iceberg.catalog.sigv4.access.key.id': {
    type: 'secret',
    description: 'Access key id; unset to use the machine’s own AWS identity.',
    ...optional,
  },
  'iceberg.catalog.sigv4.secret.access.key': {
    type: 'secret',
    description: 'Secret of the access key id.',
    ...optional,
  },
  'iceberg.catalog.vended.credentials': {
    type: 'boolean',
    description:
      'Ask the catalog for credentials to each table’s files; those of `s3.*` are used where it gives none, and alone where this is false.',
    default: true,
  },
  'iceberg.catalog.headers': {
    type: 'list',
    description: 'Further headers, `Name: value` each, without secrets: `Polaris-Realm: …`.',
    ...optional,
  },
  'iceberg.catalog.timeout': {
    type: 'duration',
    description: 'A single request may take this long.',
    default: 60_000,
  },
  'tls.mode': {
    type: 'string',
    description: 'For https: verify-full checks certificate and host name, require only encrypts.',
    default: 'verify-full',
    oneOf: ['require', 'verify-full'],
  },
  'tls.ca': {
    type: 'string',
    description: 'Path of the authority’s certificate (PEM); unset: the system’s.',
    ...optional,
  },
  'tls.cert': { type: 'string', description: 'Path of the client certificate (PEM).', ...optional },
  'tls.key': { type: 'string', description: 'Path of the client key (PEM).', ...optional },
} as const satisfies Record<string, OptionField>;

export type CatalogAuth =
  | { kind: 'none' }
  | { kind: 'bearer'; token: string }
  | {
      kind: 'oauth2';
      tokenUrl: URL;
      clientId: string | null;
      clientSecret: string;
      scope: string | null;
      extra: Record<string, string>;
    }
  | { kind: 'sigv4'; signingName: string; region: string; credentials: AwsCredentials | null };

export interface RestSettings {
  kind: 'rest';
  uri: URL;
  warehouse: string | null;
  prefix: string | null;
  auth: CatalogAuth;
  vendedCredentials: boolean;
  headers: Record<string, string>;
  timeoutMs: number;
  tls: TlsFiles;
}

export interface GlueApiSettings {
  kind: 'glue';
  endpoint: string | null;
  region: string;
  credentials: AwsCredentials | null;
  warehouse: string;
  timeoutMs: number;
}

export type CatalogSettings = RestSettings | GlueApiSettings;

/** @throws TidemarkError TM101 naming the key that does not fit; never a value */
export function catalogFrom(values: OptionValues): CatalogSettings {
  const timeoutMs = Number(values['iceberg.catalog.timeout']);
  const warehouse = text(values, 'iceberg.catalog.warehouse');
  if (values['iceberg.catalog.type'] === 'glue') {
    return {
      kind: 'glue',
      endpoint: text(values, 'iceberg.catalog.uri'),
      region: text(values, 'iceberg.catalog.sigv4.region') ?? 'us-east-1',
      credentials: awsCredentials(values),
      warehouse: warehouse ?? refuse('iceberg.catalog.warehouse', 'is required for glue'),
      timeoutMs,
    };
  }
  const uri = url(values, 'iceberg.catalog.uri') ?? refuse('iceberg.catalog.uri', 'is required');
  return {
    kind: 'rest',
    uri,
    warehouse,
    prefix: text(values, 'iceberg.catalog.prefix'),
    auth: authOf(values, uri),
    vendedCredentials: values['iceberg.catalog.vended.credentials'] === true,
    headers: headersOf(values),
    timeoutMs,
    tls: {
      verify: values['tls.mode'] !== 'require',
      ca: text(values, 'tls.ca'),
      cert: text(values, 'tls.cert'),
      key: text(values, 'tls.key'),
    },
  };
}

function authOf(values: OptionValues, uri: URL): CatalogAuth {
  const needed = (key: string) => text(values, key) ?? refuse(key, 'is required');
  switch (values['iceberg.catalog.auth']) {
    case 'bearer':
      return { kind: 'bearer', token: needed('iceberg.catalog.token') };
    case 'oauth2': {
      const ownServer = new URL(`${uri.pathname.replace(/\/+$/, '')}/v1/oauth/tokens`, uri);
      const extra: Record<string, string> = {};
      for (const name of ['audience', 'resource']) {
        const value = text(values, `iceberg.catalog.oauth2.${name}`);
        if (value !== null) extra[name] = value;
      }
      return {
        kind: 'oauth2',
        tokenUrl: url(values, 'iceberg.catalog.oauth2.token.url') ?? ownServer,
        clientId: text(values, 'iceberg.catalog.oauth2.client.id'),
        clientSecret: needed('iceberg.catalog.oauth2.client.secret'),
        scope: text(values, 'iceberg.catalog.oauth2.scope'),
        extra,
      };
    }
    case 'sigv4':
      return {
        kind: 'sigv4',
        signingName: text(values, 'iceberg.catalog.sigv4.signing.name') ?? 'glue',
        region: text(values, 'iceberg.catalog.sigv4.region') ?? 'us-east-1',
        credentials: awsCredentials(values),
      };
    default:
      return { kind: 'none' };
  }
}

function awsCredentials(values: OptionValues): AwsCredentials | null {
  const accessKeyId = text(values, 'iceberg.catalog.sigv4.access.key.id');
  const secretAccessKey = text(values, 'iceberg.catalog.sigv4.secret.access.key');
  if ((accessKeyId === null) !== (secretAccessKey === null)) {
    refuse('iceberg.catalog.sigv4.access.key.id', 'and its secret go together');
  }
  return accessKeyId && secretAccessKey ? { accessKeyId, secretAccessKey } : null;
}

function headersOf(values: OptionValues): Record<string, string> {
  const lines = values['iceberg.catalog.headers'];
  const headers: Record<string, string> = {};
  for (const line of Array.isArray(lines) ? lines : []) {
    const found = /^([A-Za-z0-9-]+):[ \t]*([\x20-\x7e]*)$/.exec(line);
    if (!found) refuse('iceberg.catalog.headers', 'must be `Name: value` each');
    headers[found[1]!.toLowerCase()] = found[2]!;
  }
  return headers;
}

function url(values: OptionValues, key: string): URL | null {
  const value = text(values, key);
  if (value === null) return null;
  const parsed = URL.parse(value);
  if (parsed === null || !/^https?:$/.test(parsed.protocol)) refuse(key, 'must be an http or https URL');
  if (parsed.username !== '' || parsed.password !== '') refuse(key, 'must hold no credentials');
  return parsed;
}

function text(values: OptionValues, key: string): string | null {
  const value = values[key];
  return typeof value === 'string' && value !== '' ? value : null;
}

function refuse(key: string, why: string): never {
  throw new TidemarkError('TM101', `${key}: ${why}`);
}
