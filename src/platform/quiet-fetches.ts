/**
 * A broker holds back an empty answer for as long as the consumer allows, and a partition that is resumed waits as long
 * to be asked for. So consumers allow little, and one that has nothing to read asks ten times a second, for every
 * partition that it has: nearly all that an idle destination costs. Where nothing came for a while, nothing is paused
 * either: kafkajs is made to allow more then.
 */
import { createRequire } from 'node:module';

interface FetchOptions {
  maxWaitTime?: number | undefined;
}

interface FetchAnswer {
  responses?: { partitions: { messages: unknown[] }[] }[];
}

/** kafkajs 2.2: one for each node and consumer. */
interface Broker {
  fetch(options: FetchOptions): Promise<FetchAnswer>;
}

/** Without a record for this long a consumer is quiet. */
const quietAfterMs = 3000;
/** Well below every session timeout: kafkajs sends no heartbeat while it waits for an answer. */
const quietWaitMs = 750;

const lastRecordAt = new WeakMap<Broker, number>();

export function waitLongerWhenQuiet(): void {
  const broker = createRequire(import.meta.url)('kafkajs/src/broker').prototype as Broker;
  const { fetch } = broker;
  broker.fetch = async function (this: Broker, options: FetchOptions) {
    const now = performance.now();
    const lastAt = lastRecordAt.get(this);
    if (lastAt === undefined) lastRecordAt.set(this, now);
    const quiet = lastAt !== undefined && now - lastAt > quietAfterMs;
    const maxWaitTime = quiet ? Math.max(options.maxWaitTime ?? 0, quietWaitMs) : options.maxWaitTime;
    const answer = await fetch.call(this, { ...options, maxWaitTime });
    if (hasRecords(answer)) lastRecordAt.set(this, performance.now());
    return answer;
  };
}

function hasRecords({ responses = [] }: FetchAnswer): boolean {
  return responses.some(({ partitions }) => partitions.some(({ messages }) => messages.length > 0));
}
