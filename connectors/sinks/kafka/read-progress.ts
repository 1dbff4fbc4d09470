/** Reads the progress topic from its beginning to its end. It is compacted, so the beginning is never far. */
import type { CommittedReader } from '../../../src/connector/kafka.ts';
import type { KnownState } from './progress.ts';

/**
 * Called by the owner of the transactional id: whatever another one had begun was aborted, so nothing is open.
 * @throws TidemarkError; kafkajs' error
 */
export async function readProgress(reader: CommittedReader, topic: string, state: KnownState): Promise<void> {
  for await (const records of reader.read(topic)) {
    for (const { key, value } of records) if (key && value) state.take(key.toString(), value.toString());
  }
}
