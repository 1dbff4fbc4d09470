/** A record as kafkajs has it, as the rest of delivery reads it. */
import type { KafkaMessage } from 'kafkajs';
import type { FetchedRecord } from './record-set.ts';

export function fetchedRecord({ offset, key, value, headers = {} }: KafkaMessage): FetchedRecord {
  return {
    offset: Number(offset),
    key,
    value,
    header(name) {
      const found = headers[name];
      return found === undefined ? undefined : Buffer.from(Array.isArray(found) ? found[0]! : found);
    },
  };
}
