/** The instance file's keys, and the type they are parsed into once. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { OptionField, OptionValues } from '../../../src/connector/sink.ts';
import type { BodyFormat } from './batch.ts';
import type { EndpointOptions } from './endpoint.ts';
import type { FindingOptions } from './finding-mapping.ts';
import { defaultColumns, defaultSeverities, defaultStatuses, findingOptionsFrom } from './finding-options.ts';
import { parseHeaders } from './headers.ts';

export const webhookOptionFields: Record<string, OptionField> = {
  url: {
    type: 'secret',
    description:
      'Where events are posted to: `https://` (or `http://`, for a loopback or a trusted network). Never printed: many collectors have a token in it.',
  },
  secret: {
    type: 'secret',
    description:
      'Base64 of 24 to 64 random bytes, with or without `whsec_` before it: every request is signed with it. Several, separated by spaces, all sign: give the new one besides the old one while receivers change over.',
  },
  headers: {
    type: 'secret',
    description:
      'Headers of every request, `Name: value`, one a line (`\\n` in JSON); for example `Authorization: Bearer …`.',
    default: null,
  },
  shape: {
    type: 'string',
    description:
      '`raw`: the Change as it was; `finding`: an OCSF 1.8 Detection Finding, see the `finding.*` keys.',
    default: 'raw',
    oneOf: ['raw', 'finding'],
  },
  format: {
    type: 'string',
    description: 'A request is a JSON `array` of events, `ndjson` (one a line), or a `single` event.',
    default: 'array',
    oneOf: ['array', 'ndjson', 'single'],
  },
  'batch.max.events': { type: 'integer', description: 'Events of a request, at most.', default: 500 },
  'batch.max.bytes': {
    type: 'bytes',
    description: 'Size of a request before compression, at most; a larger event goes by itself.',
    default: 1024 * 1024,
  },
  compression: {
    type: 'string',
    description: '`gzip`: bodies are compressed. The signature is over the body before that.',
    default: 'none',
    oneOf: ['none', 'gzip'],
  },
  lanes: {
    type: 'integer',
    description:
      'Requests of one table at the same time, at most 64. Events of one key stay in one lane, in order.',
    default: 1,
  },
  'snapshot.rows': {
    type: 'boolean',
    description:
      'Also send the rows that a snapshot reads (`r`), and the ends of snapshots (`s`), which mean nothing without them.',
    default: true,
  },
  timeout: {
    type: 'duration',
    description: 'A request may take this long from connecting to the answer’s head.',
    default: 30_000,
  },
  'tls.mode': {
    type: 'string',
    description:
      '`verify-full` checks certificate and host name; `require` only encrypts, so that anybody in between can read and answer.',
    default: 'verify-full',
    oneOf: ['require', 'verify-full'],
  },
  'tls.ca': {
    type: 'string',
    description: 'Path of the authority’s certificate (PEM); unset: those built in.',
    default: null,
  },
  'tls.cert': { type: 'string', description: 'Path of the client certificate (PEM).', default: null },
  'tls.key': { type: 'string', description: 'Path of the client key (PEM).', default: null },
  'allow.private.addresses': {
    type: 'boolean',
    description:
      'False: only addresses of the public Internet are spoken to, directly and never through a proxy. Set it where somebody else than the operator chooses url.',
    default: true,
  },
  'finding.columns': {
    type: 'list',
    description:
      '`attribute=column` for each OCSF attribute; the defaults fit the sample application’s app.findings.',
    default: defaultColumns,
  },
  'finding.severities': {
    type: 'list',
    description: '`word=severity_id` for the words of the column behind severity_id.',
    default: defaultSeverities,
  },
  'finding.statuses': {
    type: 'list',
    description: '`word=status_id` for the words of the column behind status_id.',
    default: defaultStatuses,
  },
  'finding.product': {
    type: 'string',
    description: 'metadata.product.name; unset: the source’s id.',
    default: null,
  },
  'finding.vendor': { type: 'string', description: 'metadata.product.vendor_name.', default: null },
};

export interface WebhookOptions {
  endpoint: EndpointOptions;
  shape: 'raw' | 'finding';
  format: BodyFormat;
  maxEvents: number;
  maxBytes: number;
  lanes: number;
  snapshotRows: boolean;
  finding: FindingOptions;
}

/** @throws TidemarkError TM101 naming the key that does not fit; never a value. */
export function webhookOptionsFrom(values: OptionValues): WebhookOptions {
  const text = (key: string): string | null => {
    const value = values[key];
    return typeof value === 'string' && value !== '' ? value : null;
  };
  const number = (key: string, smallest: number, largest: number): number => {
    const value = Number(values[key] ?? webhookOptionFields[key]!.default);
    if (!(value >= smallest && value <= largest)) refuse(key, `must be from ${smallest} to ${largest}`);
    return value;
  };
  const format = (text('format') ?? 'array') as BodyFormat;
  return {
    endpoint: {
      url: urlFrom(text('url')),
      secrets: secretsFrom(text('secret')),
      headers: parseHeaders(text('headers') ?? '', (why) => refuse('headers', why)),
      gzip: text('compression') === 'gzip',
      timeoutMs: number('timeout', 100, 600_000),
      allowPrivate: values['allow.private.addresses'] !== false,
      tls: {
        verify: text('tls.mode') !== 'require',
        ca: text('tls.ca'),
        cert: text('tls.cert'),
        key: text('tls.key'),
      },
    },
    shape: text('shape') === 'finding' ? 'finding' : 'raw',
    format,
    maxEvents: format === 'single' ? 1 : number('batch.max.events', 1, 100_000),
    maxBytes: number('batch.max.bytes', 1024, 1024 ** 3),
    lanes: number('lanes', 1, 64),
    snapshotRows: values['snapshot.rows'] !== false,
    finding: findingOptionsFrom(values, refuse),
  };
}

function refuse(key: string, why: string): never {
  throw new TidemarkError('TM101', `${key}: ${why}`);
}

function urlFrom(text: string | null): URL {
  if (text === null) return refuse('url', 'is required');
  // The parser's own error would quote the whole URL.
  if (!URL.canParse(text)) refuse('url', 'is not a URL');
  const url = new URL(text);
  if (url.protocol !== 'https:' && url.protocol !== 'http:') refuse('url', 'must begin with https://');
  if (url.username !== '' || url.password !== '') {
    refuse('url', 'must not hold a user or password; put an Authorization line into headers');
  }
  url.hash = '';
  return url;
}

function secretsFrom(text: string | null): Buffer[] {
  if (text === null) return refuse('secret', 'is required: `openssl rand -base64 32` makes one');
  return text
    .trim()
    .split(/\s+/)
    .map((secret, index) => {
      const base64 = secret.replace(/^whsec_/, '');
      const key = Buffer.from(base64, 'base64');
      const faithful = key.toString('base64').replace(/=+$/, '') === base64.replace(/=+$/, '');
      if (!faithful || key.length < 24 || key.length > 64) {
        refuse('secret', `number ${index + 1} is not base64 of 24 to 64 bytes: \`openssl rand -base64 32\``);
      }
      return key;
    });
}
