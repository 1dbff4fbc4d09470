/** Names of topics and record headers: the contract between publish and every consumer. */
import { type TableId, unitName } from '../connector/shape.ts';

/** Version of the meaning of the headers below; N − 1 stays readable. */
export const recordFormat = '1';

export const header = {
  /** Position of the Change, 42 characters of text. */
  position: 'tidemark.position',
  /** recordFormat. */
  format: 'tidemark.format',
  /** JSON array of the columns whose TOASTed value the update left untouched and the stream does not carry. */
  unchanged: 'tidemark.unchanged',
  /** JSON object, column to Postgres' own text, where the Avro form of the value is inexact. */
  exact: 'tidemark.exact',
  /**
   * Beside `unchanged`: a snapshot of the table has yet to bring the row that those columns are in. `1`, or the one
   * destination that it is for.
   */
  pending: 'tidemark.pending',
  /** On the delete half of a key change: the record key the row has from now on. */
  newKey: '__debezium.newkey',
  /** On the create half of a key change: the record key the row had before. */
  oldKey: '__debezium.oldkey',
  /** `1` on a record that tells of an eviction (op e). */
  eviction: 'tidemark.eviction',
  /** On a record of the quarantine topic: JSON object with destination, unit, topic and reason. */
  quarantine: 'tidemark.quarantine',
  /** On a record of the parked topic that only marks where a resume reads to: its own id. */
  resume: 'tidemark.resume',
} as const;

/** Debezium's text for a TOASTed value that is not in the stream. */
export const unavailableValue = '__debezium_unavailable_value';

export interface TopicNames {
  table(table: TableId): string;
  /** Where a snapshot's rows go that are for one destination. */
  side(table: TableId, destination: string): string;
  /**
   * The table's control topic, where its evictions are told. Not in its change topic: to whoever reads that, as Debezium's
   * consumers do, a change without a row after it is a delete.
   */
  evictions(table: TableId): string;
  progress: string;
  parked: string;
  /** Dead letters: changes that a destination refused, and those that build on them. */
  quarantine: string;
}

/** Characters that Kafka does not allow in a topic name become `_`. */
export function topicNames(prefix: string): TopicNames {
  return {
    table: (table) => `${prefix}.${unitName(table)}`,
    side: (table, destination) => `${prefix}.${unitName(table)}${sideMark}${destination}`,
    evictions: (table) => `${prefix}.${unitName(table)}${evictionsMark}`,
    progress: `${prefix}.progress`,
    parked: `${prefix}.parked`,
    quarantine: `${prefix}.quarantine`,
  };
}

/** Destinations have no dot in their names, so what follows the last one of these is one. */
const sideMark = '.for.';

const evictionsMark = '.evictions';

/** Longest topic name that Kafka takes. */
export const longestTopic = 249;

/**
 * The table's own topic behind a topic, and for whom it is: null for all.
 * @param topics all topics of tables: a table may be called so itself, and then has no other one
 */
export function splitTopic(
  topic: string,
  topics: ReadonlySet<string>,
): { table: string; destination: string | null } {
  const told = topic.endsWith(evictionsMark) ? topic.slice(0, -evictionsMark.length) : null;
  if (told !== null && topics.has(told)) return { table: told, destination: null };
  const at = topic.lastIndexOf(sideMark);
  const table = topic.slice(0, at);
  if (at < 0 || !topics.has(table)) return { table: topic, destination: null };
  return { table, destination: topic.slice(at + sideMark.length) };
}

/** The control topic that goes with a table's own topic. */
export function evictionsOf(tableTopic: string): string {
  return `${tableTopic}${evictionsMark}`;
}
