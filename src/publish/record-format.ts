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
  /** `1` beside `unchanged`: a snapshot of the table has yet to bring the row that those columns are in. */
  pending: 'tidemark.pending',
  /** On the delete half of a key change: the record key the row has from now on. */
  newKey: '__debezium.newkey',
  /** On the create half of a key change: the record key the row had before. */
  oldKey: '__debezium.oldkey',
  /** On a record of the parked topic that only marks where a resume reads to: its own id. */
  resume: 'tidemark.resume',
} as const;

/** Debezium's text for a TOASTed value that is not in the stream. */
export const unavailableValue = '__debezium_unavailable_value';

export interface TopicNames {
  table(table: TableId): string;
  progress: string;
  parked: string;
}

/** Characters that Kafka does not allow in a topic name become `_`. */
export function topicNames(prefix: string): TopicNames {
  return {
    table: (table) => `${prefix}.${unitName(table)}`,
    progress: `${prefix}.progress`,
    parked: `${prefix}.parked`,
  };
}
