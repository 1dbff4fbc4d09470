/** From a Relation message to an encoder: shape, topic and registered schemas. */
import type { Admin } from 'kafkajs';
import type { ClientBase } from 'pg';
import { type ColumnShape, tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { Logger } from '../platform/log.ts';
import type { RegistryClient } from '../platform/registry.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { describeRelation, relationColumns } from '../replicate/catalogue.ts';
import { ColumnProtector, protectionLabel } from '../replicate/column-protection.ts';
import type { Relation } from '../replicate/pgoutput.ts';
import { keySchema, sameSchema, shapeOfSchema, valueSchema } from './avro-schema.ts';
import { ParkedMessages } from './parked-messages.ts';
import { topicNames } from './record-format.ts';
import { type EncoderIdentity, TableEncoder } from './table-encoder.ts';
import { ensureTopics } from './topics.ts';

export interface PreparationContext {
  config: ResolvedConfig;
  /** A plain connection to the source, for its catalogue. */
  client: ClientBase;
  admin: Admin;
  registry: RegistryClient;
  identity: EncoderIdentity;
  /** Topics whose ends Progress already knows. */
  knownTopics: ReadonlySet<string>;
  log: Logger;
}

/**
 * Registers the table's schemas, or finds them unchanged.
 * @throws TidemarkError TM208 where the shape cannot be represented or differs from the registered one
 */
export async function prepareTable(
  context: PreparationContext,
  relation: Relation,
): Promise<{ encoder: TableEncoder; endOffsets: bigint[] | null }> {
  const { config, client, admin, registry, identity, knownTopics, log } = context;
  const described = await describeRelation(client, config.source, relation);
  const { shape, sourceColumns, tupleIndex, droppedHere } = described;
  const topic = topicNames(config.kafka.topicPrefix).table(relation);
  const value = valueSchema(shape, topic);
  const key = keySchema(shape, topic);
  await ensureTopics(admin, config.kafka, [relation]);

  const registered = await registry.latest(`${topic}-value`);
  if (registered) {
    const owner = tableName(shapeOfSchema(registered.schema));
    if (owner !== tableName(relation)) {
      throw new TidemarkError(
        'TM208',
        `topic ${topic} belongs to table ${owner}: both names become the same topic`,
      );
    }
  }
  if (registered && !sameSchema(registered.schema, value)) {
    throw new TidemarkError(
      'TM208',
      `the shape of ${tableName(relation)} changed: ${difference(registered.schema, value)}`,
    );
  }
  const valueSchemaId = registered ? registered.id : await registry.register(`${topic}-value`, value);
  const keySchemaId = key === null ? null : await registry.register(`${topic}-key`, key);
  if (droppedHere.length > 0) {
    log.info(
      `${tableName(relation)}: the publication sends columns that the policy drops; the reader drops them`,
      {
        columns: droppedHere,
      },
    );
  }
  let endOffsets: bigint[] | null = null;
  if (!knownTopics.has(topic)) {
    const offsets = await admin.fetchTopicOffsets(topic);
    endOffsets = [];
    for (const { partition, high } of offsets) endOffsets[partition] = BigInt(high);
  }
  return {
    encoder: new TableEncoder({
      shape,
      topic,
      tupleIndex,
      keySchemaId,
      valueSchemaId,
      identity,
      protection: { sourceColumns, protector: new ColumnProtector(config.source.hashKey) },
    }),
    endOffsets,
  };
}

/** What the relation's messages may carry while it is parked: known before anything else of the table is. */
export async function prepareParking(
  { config, client }: Pick<PreparationContext, 'config' | 'client'>,
  relation: Relation,
): Promise<ParkedMessages> {
  return new ParkedMessages(config.source, relation, await relationColumns(client, config.source, relation));
}

/** Which columns differ, in words; names only. */
function difference(registered: string, wanted: string): string {
  const before = shapeOfSchema(registered);
  const after = shapeOfSchema(wanted);
  const changes: string[] = [];
  for (const column of after.columns) {
    const old = before.columns.find(({ name }) => name === column.name);
    if (!old) changes.push(`column ${column.name} added`);
    else if (JSON.stringify(old.protection) !== JSON.stringify(column.protection))
      changes.push(`column ${column.name} is ${policyText(column)}, was ${policyText(old)}`);
    else if (old.type !== column.type)
      changes.push(`column ${column.name} changed from ${old.type} to ${column.type}`);
    else if (old.key !== column.key)
      changes.push(`column ${column.name} ${column.key ? 'joined' : 'left'} the key`);
  }
  for (const column of before.columns) {
    if (!after.columns.some(({ name }) => name === column.name))
      changes.push(`column ${column.name} dropped`);
  }
  return changes.length > 0 ? changes.join(', ') : 'columns were reordered or the tenant column changed';
}

function policyText({ protection }: ColumnShape): string {
  return protection ? `${protectionLabel(protection)} of ${protection.of}` : 'kept';
}
