/** Which tables were parked at a Position: read from the progress topic, without disturbing its writer. */
import type { Position } from '../connector/position.ts';
import { TidemarkError } from '../platform/errors.ts';
import { createKafka, kafkaError } from '../platform/kafka.ts';
import { CommittedReader } from '../platform/kafka-fetch/committed-records.ts';
import type { Logger } from '../platform/log.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { within } from '../platform/wait.ts';
import type { ParkedTable } from '../publish/progress.ts';
import { followProgress } from '../publish/progress-log.ts';
import { topicNames } from '../publish/record-format.ts';

export type ParkedTables = Readonly<Record<string, Pick<ParkedTable, 'position' | 'code' | 'reason'>>>;

/**
 * The first Progress of the newest ones that covers `at`. A table parked after `at` is left out.
 * @throws TidemarkError TM301 when no such Progress is read in time
 */
export async function parkedTablesAt(
  config: ResolvedConfig,
  at: Position,
  { timeoutMs, signal, log }: { timeoutMs: number; signal: AbortSignal; log: Logger },
): Promise<ParkedTables> {
  const place = { topic: topicNames(config.kafka.topicPrefix).progress, partition: 0 };
  const reader = new CommittedReader(createKafka(config.kafka, log));
  const late = () => new TidemarkError('TM301', `no Progress that covers ${at} could be read`);
  const find = async (): Promise<ParkedTables> => {
    for await (const { kind, sourceId, position, parked } of followProgress(reader, place))
      if (kind !== 'fence' && sourceId === config.source.id && position >= at) return parked;
    throw late();
  };
  try {
    const parked = await within(find(), { limitMs: timeoutMs, signal, late });
    return Object.fromEntries(Object.entries(parked).filter(([, { position }]) => position <= at));
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw kafkaError(error, 'read the progress topic');
  } finally {
    await reader.close();
  }
}
