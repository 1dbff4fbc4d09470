/** The kafkajs client from our configuration: TLS, SASL, zstd, a quiet logger and errors with our codes. */
import { createRequire } from 'node:module';
import { promisify } from 'node:util';
import { zstdCompress, zstdDecompress } from 'node:zlib';
import kafkajs, {
  type Kafka,
  type KafkaConfig as KafkaJsConfig,
  type LogEntry,
  type RetryOptions,
} from 'kafkajs';
import { TidemarkError } from './errors.ts';
import { mendConnections } from './kafkajs-connections.ts';
import type { Logger } from './log.ts';
import { waitLongerWhenQuiet } from './quiet-fetches.ts';
import type { KafkaConfig } from './resolved-config.ts';

const compress = promisify(zstdCompress);
const decompress = promisify(zstdDecompress);

// kafkajs brings gzip alone. Level 1 is node's cheapest and already makes envelopes about eight times smaller.
kafkajs.CompressionCodecs[kafkajs.CompressionTypes.ZSTD] = () => ({
  compress: (encoder: { buffer: Buffer }) => compress(encoder.buffer),
  decompress: (bytes: Buffer) => decompress(bytes),
});

/**
 * kafkajs 2.2 looks at a connection's queue of requests a thousand times a second, forever, once one was answered: the
 * time until then is reckoned from when it was last throttled, so it is negative. Only what waits has to be looked at.
 */
interface RequestQueue {
  pending: unknown[];
  scheduleCheckPendingRequests(): void;
}
const queue = createRequire(import.meta.url)('kafkajs/src/network/requestQueue').prototype as RequestQueue;
const { scheduleCheckPendingRequests } = queue;
queue.scheduleCheckPendingRequests = function (this: RequestQueue) {
  if (this.pending.length > 0) scheduleCheckPendingRequests.call(this);
};
waitLongerWhenQuiet();
mendConnections();

/** What a client needs to reach a cluster. */
export type KafkaEndpoint = Pick<KafkaConfig, 'brokers' | 'clientId' | 'tls' | 'sasl'>;

/**
 * @param options.retry overrides kafkajs' retries, for callers with a loop of their own
 * @returns a client that has not connected yet
 */
export function createKafka(
  config: KafkaEndpoint,
  log: Pick<Logger, 'debug'>,
  options: { retry?: RetryOptions } = {},
): Kafka {
  return new kafkajs.Kafka({
    brokers: config.brokers,
    clientId: config.clientId,
    connectionTimeout: 5000,
    requestTimeout: 30_000,
    retry: { initialRetryTime: 200, maxRetryTime: 5000, retries: 5, ...options.retry },
    logLevel: kafkajs.logLevel.WARN,
    logCreator: () => (entry) => writeEntry(log, entry),
    ...(config.tls === false ? {} : { ssl: config.tls }),
    ...saslOptions(config),
  });
}

function saslOptions({ sasl }: KafkaEndpoint): Pick<KafkaJsConfig, 'sasl'> {
  if (sasl === null) return {};
  const { mechanism, username, password } = sasl;
  return { sasl: { mechanism, username, password } as KafkaJsConfig['sasl'] & object };
}

/**
 * All for debugging: kafkajs calls every lost connection an error and every retry a warning, dozens a minute while a
 * broker is away, and its callers report what matters once. Of an entry only the message and names pass: never a
 * record.
 */
function writeEntry(log: Pick<Logger, 'debug'>, { namespace, log: entry }: LogEntry): void {
  const fields: Record<string, unknown> = { kafkajs: namespace };
  for (const name of ['groupId', 'broker', 'topic', 'partition', 'retryCount', 'retryTime', 'clientId'])
    if (entry[name] !== undefined) fields[name] = entry[name];
  log.debug(entry.message, fields);
}

/** The innermost kafkajs error, which names what happened; the outer ones count retries. */
export function innermost(error: Error): Error {
  let inner = error;
  for (;;) {
    const { originalError, cause } = inner as { originalError?: unknown; cause?: unknown };
    const next = cause instanceof Error ? cause : originalError;
    if (!(next instanceof Error) || next === inner) return inner;
    inner = next;
  }
}

/** Broker answers that no retry mends. */
const refusals: Record<string, string> = {
  TOPIC_AUTHORIZATION_FAILED: 'the user may not read or write a topic; grant it with kafka-acls',
  GROUP_AUTHORIZATION_FAILED: 'the user may not use a consumer group; grant READ on it with kafka-acls',
  CLUSTER_AUTHORIZATION_FAILED: 'the user may not act on the cluster; grant it with kafka-acls',
  TRANSACTIONAL_ID_AUTHORIZATION_FAILED: 'the user may not use a transactional id; grant WRITE on it',
  SASL_AUTHENTICATION_FAILED: 'the credentials are refused; correct kafka.sasl',
  UNSUPPORTED_SASL_MECHANISM: 'the broker does not offer kafka.sasl.mechanism',
};

/** A kafkajs error as TM301, with what the operator can do; anything else keeps its class. */
export function kafkaError(error: unknown, what: string): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const inner = error instanceof Error ? innermost(error) : new Error('unknown failure');
  const type = (inner as { type?: unknown }).type;
  const refusal =
    typeof type === 'string'
      ? refusals[type]
      : inner.name === 'KafkaJSSASLAuthenticationError'
        ? refusals.SASL_AUTHENTICATION_FAILED
        : undefined;
  const message = `${what}: ${refusal ?? inner.message}`;
  // Rights and passwords are mended outside; asking again (slowly) is how we notice.
  return new TidemarkError('TM301', message, {
    cause: error,
    ...(refusal ? { remedy: `Kafka says ${String(type ?? inner.name)}: ${refusal}.` } : {}),
  });
}

/** @returns whether kafkajs threw it; its word for a broker that went away while it was asked has no class of its own */
export function isKafkaError(error: unknown): boolean {
  return (
    error instanceof Error && (error.name.startsWith('KafkaJS') || error.message === 'Broker not connected')
  );
}
