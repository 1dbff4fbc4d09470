/**
 * One Kafka transaction at a time. Any failure makes a producer unusable: the caller fences again with a new one and
 * starts over from Progress, which is right for every unknown outcome.
 */
import { describeCause, TidemarkError } from '../platform/errors.ts';
import { innermost } from '../platform/kafka.ts';
import type { RecordRun } from './record-run.ts';

/** Where a partition ends after a send. */
export interface PartitionEnd {
  topic: string;
  partition: number;
  /** Last record + 1. */
  endOffset: bigint;
}

/** Notes where partitions end now; the lists of ends are replaced, never changed. */
export function noteEnds(endOffsets: Record<string, bigint[]>, written: readonly PartitionEnd[]): void {
  for (const { topic, partition, endOffset } of written) {
    const ends = [...(endOffsets[topic] ?? [])];
    while (ends.length <= partition) ends.push(0n);
    ends[partition] = endOffset;
    endOffsets[topic] = ends;
  }
}

export interface TransactionalProducer {
  /**
   * Takes the transactional id, also back from whoever took it: the previous holder's open transaction is aborted and its
   * writes fail from now on.
   */
  fence(): Promise<void>;
  /**
   * Sends into the current transaction, beginning one where needed.
   * @returns the end offset (last record + 1) of every partition written
   */
  send(runs: readonly RecordRun[]): Promise<PartitionEnd[]>;
  /** Ends the transaction; nothing to do where nothing was sent. */
  commit(): Promise<void>;
  /** What was sent since the last commit never was, to whoever reads committed; nothing to do where nothing was sent. */
  abort(): Promise<void>;
  close(): Promise<void>;
}

export function kafkajsError(what: string, error: unknown): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const root = error instanceof Error ? innermost(error) : error;
  return producerError(what, (root as { type?: string }).type ?? null, describeCause(root), error);
}

/** @param type Kafka's name of the error, where it has one */
function producerError(
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
