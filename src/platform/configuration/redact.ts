/** The configuration without its secrets, for printing. */
import type { PostgresEndpoint, ResolvedConfig, ResolvedTls } from '../resolved-config.ts';

const redacted = '[redacted]';

/** Which options are secret is known to the SinkKind, not to the values; the loader notes it here. */
const secretKeys = new WeakMap<object, ReadonlySet<string>>();

/** Notes which keys of a destination's options are of type `secret`. */
export function rememberSecrets(options: object, keys: Iterable<string>): void {
  secretKeys.set(options, new Set(keys));
}

/**
 * A copy that may be printed: passwords, TLS keys and secret options are `[redacted]`, other texts lose the password
 * of a URL in them. Options that did not come from loadConfig have every text redacted.
 */
export function redactConfig(config: ResolvedConfig): Record<string, unknown> {
  return {
    file: config.file,
    source: {
      ...config.source,
      endpoint: redactEndpoint(config.source.endpoint),
      hashKey: config.source.hashKey === null ? null : redacted,
    },
    kafka: {
      ...config.kafka,
      tls: redactTls(config.kafka.tls),
      sasl: config.kafka.sasl && { ...config.kafka.sasl, password: redacted },
    },
    registry: {
      ...config.registry,
      url: withoutUrlPassword(config.registry.url),
      password: config.registry.password === null ? null : redacted,
      tls: redactTls(config.registry.tls),
    },
    control: redactEndpoint(config.control),
    deliver: { ...config.deliver },
    destinations: config.destinations.map((destination) => ({
      ...destination,
      options: redactOptions(destination.options),
    })),
    ...(config.retain
      ? {
          retain: {
            ...config.retain,
            endpoint: redactEndpoint(config.retain.endpoint),
            setupEndpoint: redactEndpoint(config.retain.setupEndpoint),
            officerEndpoint: redactEndpoint(config.retain.officerEndpoint),
          },
        }
      : {}),
    observe: { ...config.observe },
  };
}

/** As redactConfig, for one Postgres endpoint. */
export function redactEndpoint(endpoint: PostgresEndpoint): Record<string, unknown> {
  const password = endpoint.password === null ? null : redacted;
  return { ...endpoint, password, tls: redactTls(endpoint.tls) };
}

function redactTls(tls: ResolvedTls): unknown {
  if (tls === false) return false;
  return {
    verified: tls.rejectUnauthorized !== false,
    serverName: tls.servername ?? null,
    ca: tls.ca === undefined ? 'built in' : 'given',
    clientCertificate: tls.cert !== undefined,
  };
}

function redactOptions(options: ResolvedConfig['destinations'][number]['options']): Record<string, unknown> {
  const secrets = secretKeys.get(options);
  const entries = Object.entries(options).map(([key, value]) => {
    const isSecret = secrets ? secrets.has(key) : typeof value === 'string' || Array.isArray(value);
    if (value !== null && isSecret) return [key, redacted];
    return [key, typeof value === 'string' ? withoutUrlPassword(value) : value];
  });
  return Object.fromEntries(entries) as Record<string, unknown>;
}

function withoutUrlPassword(text: string): string {
  return text
    .replace(/^([a-z][a-z0-9+.-]*:\/\/[^:@/?#]*):[^/?#]*@/i, `$1:${redacted}@`)
    .replace(/([?&](?:password|sslpassword|token|secret)=)[^&#]*/gi, `$1${redacted}`);
}
