/** The instance file's values, parsed once into what the sink works with. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { KafkaEndpoint } from '../../../src/connector/kafka.ts';
import type { OptionValues, SinkContext } from '../../../src/connector/sink.ts';
import { defaultTlsMode, type ResolvedTls, resolveTls, type TlsMode } from '../../../src/connector/tls.ts';
import { type MetadataField, metadataFields } from './options.ts';
import { parseTemplate, safeName, type TopicTemplate } from './topic-name.ts';

export interface RegistrySettings {
  /** Without a slash at its end, and without credentials. */
  url: string;
  credentials: { username: string; password: string } | null;
  tls: ResolvedTls;
}

export interface RowSettings {
  format: 'json' | 'avro';
  /** JSON with Connect's schema around it. */
  schemas: boolean;
  deletes: 'tombstone' | 'rewrite' | 'both';
  unchanged: 'omit' | 'placeholder';
  metadata: readonly MetadataField[];
  metadataPrefix: string;
  timestamps: 'exact' | 'millis';
}

export interface TopicSettings {
  template: TopicTemplate;
  create: boolean;
  /** -1: as the broker is set. */
  partitions: number;
  replicationFactor: number;
  cleanup: string;
  /** Settings of topics that are made. */
  config: Readonly<Record<string, string>>;
}

export interface KafkaSettings {
  endpoint: KafkaEndpoint;
  registry: RegistrySettings | null;
  rows: RowSettings;
  topics: TopicSettings;
  progressTopic: string;
  controlTopic: string;
  control: boolean;
  controlEvictions: boolean;
  transactionalId: string;
  compression: 'none' | 'gzip' | 'zstd';
  transactionTimeoutMs: number;
}

/** A 64 MiB row, the largest that the pipeline carries, and its frame. */
const largestBatch = String((64 << 20) + (1 << 20));

function refuse(key: string, why: string): never {
  throw new TidemarkError('TM101', `${key}: ${why}`);
}

/** @throws TidemarkError TM101 naming the key that does not fit; never a value. */
export async function resolveSettings(
  { sourceId, destination }: Pick<SinkContext, 'sourceId' | 'destination'>,
  values: OptionValues,
): Promise<KafkaSettings> {
  const text = (key: string): string | null => {
    const value = values[key];
    return typeof value === 'string' && value !== '' ? value : null;
  };
  const own = `tidemark.${safeName(sourceId)}.${safeName(destination)}`;
  const transactionTimeoutMs = Number(values['transaction.timeout']);
  if (!(transactionTimeoutMs >= 1000)) refuse('transaction.timeout', 'needs at least 1 s');
  return {
    endpoint: await endpointFrom(values, text),
    registry: await registryFrom(values, text),
    rows: rowsFrom(values, text),
    topics: topicsFrom(values, text),
    progressTopic: topicFrom('progress.topic', text('progress.topic') ?? `${own}.progress`),
    controlTopic: topicFrom('control.topic', text('control.topic') ?? `${own}.control`),
    control: values['control.records'] !== false,
    controlEvictions: values['control.evictions'] === true,
    transactionalId: own,
    compression: (text('compression.type') ?? 'zstd') as KafkaSettings['compression'],
    transactionTimeoutMs,
  };
}

type TextOf = (key: string) => string | null;

async function endpointFrom(values: OptionValues, text: TextOf): Promise<KafkaEndpoint> {
  const brokers = (values['kafka.brokers'] ?? []) as string[];
  if (brokers.length === 0) refuse('kafka.brokers', 'needs at least one host:port');
  for (const broker of brokers)
    if (!/^[^\s/@]+:\d{1,5}$/.test(broker)) refuse('kafka.brokers', 'has an entry that is not host:port');
  const local = brokers.every(
    (broker) => defaultTlsMode(broker.replace(/:\d+$/, '').replace(/^\[|\]$/g, '')) === 'disable',
  );
  const mechanism = text('kafka.sasl.mechanism') as 'plain' | 'scram-sha-256' | 'scram-sha-512' | null;
  const username = text('kafka.sasl.username');
  const password = text('kafka.sasl.password');
  if (mechanism !== null && (username === null || password === null))
    refuse('kafka.sasl.mechanism', 'needs kafka.sasl.username and kafka.sasl.password');
  if (mechanism === null && (username !== null || password !== null))
    refuse('kafka.sasl.username', 'is set without kafka.sasl.mechanism');
  return {
    brokers,
    clientId: text('kafka.client.id') ?? 'tidemark',
    tls: await tlsFrom('kafka', text, local ? 'disable' : 'verify-full'),
    sasl: mechanism === null ? null : { mechanism, username: username!, password: password! },
  };
}

async function registryFrom(values: OptionValues, text: TextOf): Promise<RegistrySettings | null> {
  if (values.format !== 'avro') return null;
  const source = text('registry.url') ?? refuse('registry.url', 'is required for format: avro');
  // The parser's own error would quote the whole URL, password included.
  if (!URL.canParse(source)) refuse('registry.url', 'is not a URL');
  const url = new URL(source);
  if (!/^https?:$/.test(url.protocol)) refuse('registry.url', 'does not start with http:// or https://');
  const username = text('registry.username') ?? (decodeURIComponent(url.username) || null);
  const password = text('registry.password') ?? (decodeURIComponent(url.password) || null);
  if ((username === null) !== (password === null))
    refuse('registry.username', 'and registry.password go together');
  url.username = '';
  url.password = '';
  return {
    url: url.href.replace(/\/+$/, ''),
    credentials: username !== null && password !== null ? { username, password } : null,
    tls: await tlsFrom('registry', text, url.protocol === 'https:' ? 'verify-full' : 'disable'),
  };
}

function tlsFrom(section: 'kafka' | 'registry', text: TextOf, unset: TlsMode): Promise<ResolvedTls> {
  const settings = {
    mode: (text(`${section}.tls.mode`) ?? unset) as TlsMode,
    ca: text(`${section}.tls.ca`),
    cert: text(`${section}.tls.cert`),
    key: text(`${section}.tls.key`),
    passphrase: text(`${section}.tls.key.passphrase`),
    serverName: text(`${section}.tls.server.name`),
  };
  return resolveTls(settings, (setting, why) => refuse(`${section}.tls.${setting}`, why));
}

function rowsFrom(values: OptionValues, text: TextOf): RowSettings {
  const format = (text('format') ?? 'json') as RowSettings['format'];
  const schemas = values['schemas.enable'] === true;
  if (schemas && format === 'avro')
    refuse('schemas.enable', 'is for format: json; Avro always has its schema');
  const bare = format === 'json' && !schemas;
  const unchanged = (text('unchanged') ?? (bare ? 'omit' : 'placeholder')) as RowSettings['unchanged'];
  // A reader with a schema takes a field that is not there for NULL.
  if (unchanged === 'omit' && !bare)
    refuse('unchanged', 'omit is for JSON without schemas: elsewhere a field that is left out reads as NULL');
  const metadata = (values['metadata.fields'] ?? []) as string[];
  for (const field of metadata) {
    if (!(metadataFields as readonly string[]).includes(field))
      refuse('metadata.fields', `knows ${metadataFields.join(', ')}`);
  }
  return {
    format,
    schemas,
    deletes: (text('delete.mode') ?? 'tombstone') as RowSettings['deletes'],
    unchanged,
    metadata: metadata as MetadataField[],
    metadataPrefix: String(values['metadata.prefix'] ?? ''),
    timestamps: (text('timestamps') ?? 'exact') as RowSettings['timestamps'],
  };
}

function topicsFrom(values: OptionValues, text: TextOf): TopicSettings {
  const count = (key: string): number => {
    const value = values[key];
    if (value === null || value === undefined) return -1;
    if (!(Number(value) >= 1)) refuse(key, 'needs at least 1');
    return Number(value);
  };
  const config: Record<string, string> = { 'max.message.bytes': largestBatch };
  for (const entry of (values['topic.config'] ?? []) as string[]) {
    const [, name, value] =
      /^([a-z][a-z.]*)=(.+)$/.exec(entry) ?? refuse('topic.config', 'has an entry that is not name=value');
    if (name === 'cleanup.policy') refuse('topic.config', 'cleanup.policy is topic.cleanup.policy');
    config[name!] = value!;
  }
  return {
    template: parseTemplate(text('topic.name') ?? refuse('topic.name', 'is required')),
    create: values['topic.create'] !== false,
    partitions: count('topic.partitions'),
    replicationFactor: count('topic.replication.factor'),
    cleanup: text('topic.cleanup.policy') ?? 'compact',
    config,
  };
}

function topicFrom(key: string, name: string): string {
  if (!/^[A-Za-z0-9._-]{1,249}$/.test(name))
    refuse(key, 'is not a topic name: letters, digits and . _ - only, up to 249');
  return name;
}
