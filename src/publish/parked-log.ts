/**
 * The raw messages of one parked table, read back from the parked topic in the order they came. The end is a record
 * that the reader writes for the purpose, as with Progress: a topic's end offset also counts markers.
 */
import type { Kafka } from 'kafkajs';
import { CommittedReader } from '../platform/kafka-fetch/committed-records.ts';
import { type FetchedRecord, headerOf } from '../platform/kafka-fetch/record-set.ts';
import { header } from './record-format.ts';

/** R: a Relation message. */
const relationByte = 0x52;

export interface ParkedLogOptions {
  kafka: Kafka;
  topic: string;
  table: string;
  /** Where the table was parked; what was parked of it before then was brought back already. */
  from: string;
  /** Of the record that ends the reading. */
  endMark: string;
}

/** @throws kafkajs' error; TidemarkError TM301 where the topic cannot be read */
export async function* readParked({
  kafka,
  topic,
  table,
  from,
  endMark,
}: ParkedLogOptions): AsyncGenerator<Buffer, void> {
  const reader = new CommittedReader(kafka);
  const place = { topic, partition: 0 };
  let pending: Buffer[] = [];
  try {
    const { beginning } = await reader.boundsOf(place);
    for await (const record of reader.follow(place, beginning)) {
      const { key, value } = record;
      const resumed = text(record, header.resume);
      if (resumed === endMark) return;
      if (!value || key?.toString() !== table || resumed !== null) continue;
      const position = text(record, header.position);
      // What describes the table has no Position: it counts with the Change that follows it.
      if (position === null) pending.push(value);
      else if (position < from)
        pending = pending.filter((description) => description[0] === relationByte).slice(-1);
      else {
        yield* pending;
        pending = [];
        yield value;
      }
    }
  } finally {
    await reader.close();
  }
}

function text(record: FetchedRecord, name: string): string | null {
  return headerOf(record, name)?.toString() ?? null;
}
