/**
 * One Kafka transaction at a time. Any failure makes a producer unusable: the caller fences again with a new one and
 * starts over from Progress, which is right for every unknown outcome.
 */
import type { Message } from 'kafkajs';
import { TidemarkError } from '../platform/errors.ts';

export interface TopicBatch {
  topic: string;
  messages: Message[];
}

/** Where a partition ends after a send. */
export interface PartitionEnd {
  topic: string;
  partition: number;
  /** Last record + 1. */
  endOffset: bigint;
}

export interface TransactionalProducer {
  /** Takes the transactional id: the previous holder's open transaction is aborted and its writes fail from now on. */
  fence(): Promise<void>;
  /**
   * Sends into the current transaction, beginning one where needed.
   * @returns the end offset (last record + 1) of every partition written
   */
  send(batches: TopicBatch[]): Promise<PartitionEnd[]>;
  /** Ends the transaction; nothing to do where nothing was sent. */
  commit(): Promise<void>;
  /** What was sent since the last commit never was, to whoever reads committed; nothing to do where nothing was sent. */
  abort(): Promise<void>;
  close(): Promise<void>;
}

/** Cuts a batch into sends of a bounded number of messages and bytes; a single larger message goes alone. */
export function* portions(
  batches: readonly TopicBatch[],
  maxMessages: number,
  maxBytes: number,
): Generator<TopicBatch[]> {
  let part: TopicBatch[] = [];
  let messagesLeft = maxMessages;
  let bytesLeft = maxBytes;
  for (const { topic, messages } of batches) {
    let from = 0;
    for (let at = 0; at < messages.length; at++) {
      const size = sizeOf(messages[at]!);
      if ((messagesLeft === 0 || size > bytesLeft) && (part.length > 0 || at > from)) {
        if (at > from) part.push({ topic, messages: messages.slice(from, at) });
        yield part;
        part = [];
        from = at;
        messagesLeft = maxMessages;
        bytesLeft = maxBytes;
      }
      messagesLeft--;
      bytesLeft -= size;
    }
    part.push({ topic, messages: from === 0 ? messages : messages.slice(from) });
  }
  if (part.length > 0) yield part;
}

function sizeOf({ key, value }: Message): number {
  return (key?.length ?? 0) + (value?.length ?? 0) + 100;
}

/** @param type Kafka's name of the error, where it has one */
export function producerError(
  what: string,
  type: string | null,
  description: string,
  cause: unknown,
): TidemarkError {
  switch (type) {
    case 'PRODUCER_FENCED':
    case 'INVALID_PRODUCER_EPOCH':
      return new TidemarkError('TM302', 'the transactional id was taken over', { cause });
    case 'TRANSACTIONAL_ID_AUTHORIZATION_FAILED':
    case 'TOPIC_AUTHORIZATION_FAILED':
    case 'CLUSTER_AUTHORIZATION_FAILED':
      return new TidemarkError('TM303', `Kafka refused to ${what}: ${type}`, {
        cause,
        remedy: 'Grant WRITE and DESCRIBE on the topics and the transactional id to this user.',
      });
    case 'MESSAGE_TOO_LARGE':
    case 'RECORD_LIST_TOO_LARGE':
      return new TidemarkError('TM303', 'Kafka refused a batch as too large', {
        cause,
        remedy: 'Raise max.message.bytes of the topics: `tidemark check` prints the command.',
      });
    default:
      return new TidemarkError('TM301', `cannot ${what}: ${type ?? description}`, { cause });
  }
}
