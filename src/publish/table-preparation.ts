/** From a Relation message to an encoder: shape, topic and registered schemas. */
import type { Admin } from 'kafkajs';
import type { ClientBase } from 'pg';
import { type ColumnShape, type TableId, type TableShape, tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { Logger } from '../platform/log.ts';
import type { IncompatibleChange, ResolvedConfig } from '../platform/resolved-config.ts';
import { describeRelation, relationColumns } from '../replicate/catalogue.ts';
import { catalogueOrigins, fillWithheld, noteOrigins, type ShapeNote } from '../replicate/column-origins.ts';
import { ColumnProtector } from '../replicate/column-protection.ts';
import type { Relation } from '../replicate/pgoutput.ts';
import { existingValues } from '../replicate/rewritten-values.ts';
import { sourceError } from '../replicate/source.ts';
import type { EncoderIdentity } from './envelope-frame.ts';
import { ParkedMessages } from './parked-messages.ts';
import { topicNames } from './record-format.ts';
import { TableEncoder } from './table-encoder.ts';
import type { TableVersions } from './table-versions.ts';
import { ensureTopics } from './topics.ts';
import { binaryTextOf, readerCodecs } from './types/reader-codecs.ts';
import { requireReadable } from './value-form.ts';

export interface PreparationContext {
  config: ResolvedConfig;
  /** A plain connection to the source, for its catalogue. */
  client: ClientBase;
  admin: Admin;
  versions: TableVersions;
  identity: EncoderIdentity;
  /** Topics whose ends Progress already knows. */
  knownTopics: ReadonlySet<string>;
  /** Whether the stream carries binary values. */
  binary: boolean;
  log: Logger;
}

/** What the stream itself told of a table before its Relation message. */
export interface StreamNotes {
  /** Of the optional event trigger. */
  shape: ShapeNote | null;
  /** The name that the table had in this stream before. */
  renamedFrom: string | null;
  /** Of the Transaction that is being read; null where the catalogue is not to be asked. */
  xid: number | null;
  /** The Relation is the stream's, and not the catalogue's: what was written earlier has been read under another one. */
  streamed: boolean;
  /** How the operator wants the table to come back, whatever its rule says; null: nobody asked. */
  policy: IncompatibleChange | null;
}

/** Whether the error parks its table and nothing else. */
export function parksTable(error: unknown): error is TidemarkError {
  return error instanceof TidemarkError && (error.code === 'TM208' || error.code === 'TM231');
}

/**
 * Registers the table's schemas, or finds their versions.
 * @throws TidemarkError TM208 where the shape cannot be represented, TM231 where its change is against policy, TM210
 *   where the stream must be read with text values
 */
export async function prepareTable(
  context: PreparationContext,
  relation: Relation,
  notes: StreamNotes,
): Promise<{ encoder: TableEncoder; endOffsets: bigint[] | null }> {
  const { config, client, admin, versions, identity, knownTopics, binary, log } = context;
  const described = await describeRelation(client, config.source, relation).catch(sourceFailed);
  const { sourceColumns, tupleIndex, droppedHere, types, typeOids } = described;
  if (binary) requireReadable(described, config.source.values);
  const topic = topicNames(config.kafka.topicPrefix).table(relation);
  const noted = await notedOrigins(client, relation, notes.shape);
  const { xid } = notes;
  const origins =
    noted ?? (xid === null ? new Map() : await catalogueOrigins(client, relation, xid).catch(sourceFailed));
  if (!versions.has(topic)) await ensureTopics(admin, config.kafka, [relation]);
  const { shape, valueSchemaId, keySchemaId } = await versions.register({
    topic,
    shape: described.shape,
    oid: relation.oid,
    origins,
    made: notes.shape?.made ?? false,
    ...(xid !== null &&
      notes.streamed && {
        existingValues: (numbers: readonly number[]) =>
          existingValues(client, { oid: relation.oid, xid, numbers, noted: noted !== null }).catch(
            sourceFailed,
          ),
      }),
    renamedFrom: notes.renamedFrom,
    policy: notes.policy,
  });
  if (droppedHere.length > 0) {
    log.info(
      `${tableName(relation)}: the publication sends columns that the policy drops; the reader drops them`,
      {
        columns: droppedHere,
      },
    );
  }
  const endOffsets = await unknownEnds(admin, topic, knownTopics);
  return {
    encoder: new TableEncoder({
      shape,
      topic,
      tupleIndex,
      keySchemaId,
      valueSchemaId,
      identity,
      codecs: readerCodecs({ ...shape, columns: asCarried(sourceColumns, shape) }, types, typeOids),
      protection: { sourceColumns, protector: new ColumnProtector(config.source.hashKey) },
    }),
    endOffsets,
  };
}

async function unknownEnds(
  admin: Admin,
  topic: string,
  knownTopics: ReadonlySet<string>,
): Promise<bigint[] | null> {
  if (knownTopics.has(topic)) return null;
  const endOffsets: bigint[] = [];
  for (const { partition, high } of await admin.fetchTopicOffsets(topic))
    endOffsets[partition] = BigInt(high);
  return endOffsets;
}

/** For records that have a key and nothing else: values are text, columns that are hashed or masked have none. */
export async function prepareRegistered(
  { config, admin, versions, identity, knownTopics }: Omit<PreparationContext, 'binary'>,
  table: TableId,
): Promise<{ encoder: TableEncoder; endOffsets: bigint[] | null } | null> {
  const topic = topicNames(config.kafka.topicPrefix).table(table);
  const registered = await versions.newest(topic);
  if (!registered) return null;
  const { shape: found, valueSchemaId, keySchemaId } = registered;
  const columns = found.columns.map(({ protection: _, ...column }) => column);
  const shape = { ...found, columns };
  const tupleIndex = columns.map((_, i) => i);
  return {
    encoder: new TableEncoder({ shape, topic, tupleIndex, keySchemaId, valueSchemaId, identity }),
    endOffsets: await unknownEnds(admin, topic, knownTopics),
  };
}

async function notedOrigins(client: ClientBase, relation: Relation, note: ShapeNote | null) {
  const origins = note && noteOrigins(relation, note);
  return origins && (await fillWithheld(client, relation, origins).catch(sourceFailed));
}

/** The columns as Postgres has them, in the Avro forms that the registered shape gave them. */
function asCarried(sourceColumns: readonly ColumnShape[], { columns }: TableShape): ColumnShape[] {
  return sourceColumns.map((column, i) => (columns[i]!.carried ? { ...column, form: 'text' } : column));
}

/** What the relation's messages may carry while it is parked: known before anything else of the table is. */
export async function prepareParking(
  { config, client }: Pick<PreparationContext, 'config' | 'client'>,
  relation: Relation,
): Promise<ParkedMessages> {
  const { columns, types } = await relationColumns(client, config.source, relation).catch(sourceFailed);
  return new ParkedMessages(
    config.source,
    relation,
    columns.map(({ type, policy, typeOid }) => ({ type, policy, text: binaryTextOf(types, typeOid) })),
  );
}

/** A catalogue connection that was lost is no bug: the reader starts over. */
function sourceFailed(error: unknown): never {
  throw sourceError(error);
}
