/**
 * The one place that reads configuration: tidemark.yaml and the instance files into a ResolvedConfig. Keys are in
 * configuration/fields.ts; docs/configuration.md is generated from them.
 */
import { dirname, resolve as resolvePath } from 'node:path';
import {
  type InstanceContext,
  loadDestination,
  loadDestinations,
  type SinkOptions,
} from './configuration/destinations.ts';
import { type MapNode, readDocument } from './configuration/document.ts';
import {
  kafkaSasl,
  kafkaTls,
  postgresEndpoint,
  registryConfig,
  type SectionContext,
} from './configuration/endpoints.ts';
import { withoutPrefix } from './configuration/field.ts';
import { configurationFields } from './configuration/fields.ts';
import { checkPrivacyRules } from './configuration/privacy-rules.ts';
import { Problems } from './configuration/problems.ts';
import { resolveReferences } from './configuration/references.ts';
import { retainConfig, withArchive } from './configuration/retention.ts';
import { parseTableRules } from './configuration/table-rules.ts';
import { readValues } from './configuration/values.ts';
import type { DestinationConfig, ResolvedConfig } from './resolved-config.ts';

export { redactConfig, redactEndpoint } from './configuration/redact.ts';

/**
 * Reads and validates everything. `file` is tidemark.yaml; relative paths in it start at its folder, those in
 * instance files at theirs. `sinkKinds` by the value of `connector.class`.
 * @throws TM101 for wrong files, keys and values, TM102 if only references are unresolved. Every problem of every
 * file is a line of the message, none of them holds a value.
 */
export async function loadConfig(
  file: string,
  sinkKinds: ReadonlyMap<string, SinkOptions>,
  env: NodeJS.ProcessEnv = process.env,
): Promise<ResolvedConfig> {
  const problems = new Problems();
  const absolute = resolvePath(file);
  const directory = dirname(absolute);
  const root = await readDocument(absolute, 'yaml', problems.in(file));
  if (!root) problems.throwIfAny();
  await resolveReferences(root!, { file, directory, env, problems });
  const config = await resolveConfig(root!, { file, absolute, directory }, { sinkKinds, env, problems });
  problems.throwIfAny();
  return config;
}

/** An instance file by itself, without a tidemark.yaml. @throws as loadConfig */
export async function loadInstance(
  file: string,
  sinkKinds: ReadonlyMap<string, SinkOptions>,
  env: NodeJS.ProcessEnv = process.env,
): Promise<DestinationConfig> {
  const problems = new Problems();
  const absolute = resolvePath(file);
  const destination = await loadDestination(absolute, dirname(absolute), { sinkKinds, env, problems });
  problems.throwIfAny();
  return destination!;
}

/** Usable only if it added no problem. */
async function resolveConfig(
  root: MapNode,
  at: { file: string; absolute: string; directory: string },
  instances: InstanceContext,
): Promise<ResolvedConfig> {
  const report = instances.problems.in(at.file);
  const read = readValues(root, configurationFields, {
    directory: at.directory,
    report,
    parseTables: parseTableRules,
  });
  const { values, failed, given } = read;
  const context: SectionContext = { values, failed, given, directory: at.directory, report };
  const source = withoutPrefix('source', values);
  const kafka = withoutPrefix('kafka', values);
  const deliver = withoutPrefix('deliver', values);

  const replicas = ['kafka.topic.min.insync.replicas', 'kafka.topic.replication.factor'] as const;
  if (replicas.every((key) => !failed.has(key)) && values[replicas[0]] > values[replicas[1]]) {
    report(
      replicas[0],
      `must be at most ${replicas[1]}`,
      given.get(replicas[0]) ?? given.get(replicas[1]) ?? null,
    );
  }
  checkPrivacyRules(
    {
      tables: source.tables ?? [],
      tenantColumn: source['tenant.column'],
      hashKey: values['privacy.hash.key'],
      hashKeyFailed: failed.has('privacy.hash.key'),
      line: given.get('source.tables') ?? null,
    },
    report,
  );
  const ownName = `tidemark_${source.id ?? ''}`.replaceAll('-', '_');
  const directoryKey = 'deliver.instances.directory';
  const sourceEndpoint = await postgresEndpoint('source', context);
  const retain = await retainConfig(context, sourceEndpoint);
  return {
    file: at.absolute,
    ...(retain ? { retain } : {}),
    source: {
      id: source.id,
      endpoint: sourceEndpoint,
      slot: source.slot ?? ownName,
      slotFailover: source['slot.failover'],
      walBudget:
        source['wal.budget.bytes'] === null
          ? null
          : { bytes: source['wal.budget.bytes'], action: source['wal.budget.action'] },
      publication: source.publication ?? ownName,
      tables: retain ? withArchive(source.tables ?? []) : source.tables,
      tenantColumn: source['tenant.column'],
      personalColumns: (source['personal.columns'] ?? []).map((pattern) => pattern.toLowerCase()),
      hashKey: values['privacy.hash.key'],
      heartbeatIntervalMs: source['heartbeat.interval'],
      publicationColumnLists: source['publication.column.lists'],
      publicationIntervalMs: source['publication.interval'],
      statusIntervalMs: source['status.interval'],
      values: source.values,
      snapshot: {
        mode: source['snapshot.mode'],
        chunkRows: source['snapshot.chunk.rows'],
        chunkBytes: source['snapshot.chunk.bytes'],
      },
    },
    kafka: {
      brokers: kafka.brokers,
      clientId: kafka['client.id'],
      tls: await kafkaTls(context),
      sasl: kafkaSasl(context),
      topicPrefix: kafka['topic.prefix'] ?? source.id,
      partitions: kafka['topic.partitions'],
      replicationFactor: kafka['topic.replication.factor'],
      minInsyncReplicas: kafka['topic.min.insync.replicas'],
      retentionMs: kafka['topic.retention'],
      rowMaxBytes: kafka['row.max.bytes'],
      compression: kafka.compression,
      producer: kafka.producer,
      batchMaxBytes: kafka['batch.max.bytes'],
      transactionTimeoutMs: kafka['transaction.timeout'],
      sessionTimeoutMs: kafka['session.timeout'],
    },
    registry: await registryConfig(context),
    control: await postgresEndpoint('control', context),
    deliver: {
      instancesDirectory: deliver['instances.directory'],
      memoryBytes: deliver['memory.bytes'],
      spillDirectory: deliver['spill.directory'],
      spillMaxBytes: deliver['spill.max.bytes'],
      spillMemoryBytes: deliver['spill.memory.bytes'],
    },
    destinations: failed.has(directoryKey)
      ? []
      : await loadDestinations(deliver['instances.directory'], given.has(directoryKey), instances),
    observe: { metricsHost: values['observe.metrics.host'], metricsPort: values['observe.metrics.port'] },
  };
}
