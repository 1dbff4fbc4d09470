/** The HTTP side: signed POSTs over connections that are kept, with one limit of time, and redirects within the host. */
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { Agent, type Dispatcher, EnvHttpProxyAgent, request } from 'undici';
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type PemPaths, readPemFiles } from '../../../src/connector/pem-files.ts';
import { guardedLookup, literalAddress, requireAllowed } from './addresses.ts';
import { type Answer, connectionLost, networkFailure, retryAfterOf } from './answers.ts';
import { signatureHeaders } from './signature.ts';

export interface EndpointOptions {
  url: URL;
  secrets: readonly Buffer[];
  /** Lower-case names. */
  headers: Readonly<Record<string, string>>;
  gzip: boolean;
  timeoutMs: number;
  allowPrivate: boolean;
  /** Paths of PEM files. */
  tls: PemPaths & { verify: boolean };
}

const connectTimeoutMs = 10_000;
const mostRedirects = 3;
/** Answers are read only so that their connection can be used again; what is longer or slower is cut off. */
const drainBytes = 64 * 1024;
const drainMs = 2000;
const compress = promisify(gzip);

export class Endpoint {
  readonly #options: EndpointOptions;
  readonly #dispatcher: Dispatcher;

  /** @throws TidemarkError TM101 for an address that is not allowed, TM102 for a PEM file that cannot be read */
  constructor(options: EndpointOptions) {
    const { url, allowPrivate } = options;
    const address = literalAddress(url);
    if (address !== null) requireAllowed(address, allowPrivate);
    this.#options = options;
    this.#dispatcher = dispatcherFor(options);
  }

  /**
   * Posts a signed body; the same id and body may be posted again.
   * @throws TidemarkError where there is no answer
   */
  async post(id: string, body: Buffer, contentType: string): Promise<Answer> {
    const { gzip } = this.#options;
    const payload = gzip ? await compress(body, { level: 3 }) : body;
    return this.#exchange('POST', () => ({
      body: payload,
      headers: {
        'content-type': contentType,
        ...(gzip ? { 'content-encoding': 'gzip' } : {}),
        ...this.#headers(id, body),
      },
    }));
  }

  /** Asks without sending an event, signed like one: whatever the endpoint answers, it is there. @throws TidemarkError */
  async head(id: string): Promise<Answer> {
    return this.#exchange('HEAD', () => ({ headers: this.#headers(id, Buffer.alloc(0)) }));
  }

  async close(): Promise<void> {
    await this.#dispatcher.destroy();
  }

  #headers(id: string, body: Buffer): Record<string, string> {
    const { headers, secrets } = this.#options;
    return { ...headers, ...signatureHeaders(secrets, id, Math.floor(Date.now() / 1000), body) };
  }

  async #exchange(
    method: 'POST' | 'HEAD',
    make: () => { body?: Buffer; headers: Record<string, string> },
  ): Promise<Answer> {
    const { url: start, timeoutMs } = this.#options;
    const begun = performance.now();
    const overdue = new AbortController();
    const timer = setTimeout(() => overdue.abort(), timeoutMs);
    try {
      let url = start;
      let fresh = false;
      for (let redirects = 0; ; ) {
        try {
          const { statusCode, headers, body } = await request(url, {
            method,
            dispatcher: this.#dispatcher,
            signal: overdue.signal,
            ...make(),
          });
          const durationMs = Math.round(performance.now() - begun);
          await body.dump({ limit: drainBytes, signal: AbortSignal.timeout(drainMs) }).catch(() => undefined);
          const target = redirects < mostRedirects ? redirectTarget(statusCode, headers.location, url) : null;
          if (target === null) {
            return {
              status: statusCode,
              retryAfterMs: retryAfterOf(headers['retry-after'], Date.now()),
              durationMs,
            };
          }
          url = target;
          redirects += 1;
        } catch (error) {
          // It may have arrived: the id is the same, and sending again after a pause would be no different.
          if (fresh || overdue.signal.aborted || !connectionLost(error)) throw error;
          fresh = true;
        }
      }
    } catch (error) {
      if (overdue.signal.aborted) {
        throw new TidemarkError('TM401', `the endpoint did not answer within ${timeoutMs} ms`, {
          remedy: 'Check the endpoint; or raise timeout, or lower batch.max.events, if it needs longer.',
        });
      }
      throw networkFailure(error);
    } finally {
      clearTimeout(timer);
    }
  }
}

/**
 * Where the same request goes next, or null. Another host would get events and credentials that were not meant for it,
 * and a redirect to GET (303) would leave the events behind.
 */
export function redirectTarget(
  status: number,
  location: string | string[] | undefined,
  from: URL,
): URL | null {
  if (![301, 302, 307, 308].includes(status)) return null;
  if (typeof location !== 'string' || !URL.canParse(location, from.href)) return null;
  const target = new URL(location, from);
  const upgraded =
    from.protocol === 'http:' &&
    target.protocol === 'https:' &&
    from.hostname === target.hostname &&
    from.port === '' &&
    target.port === '';
  if ((target.origin !== from.origin && !upgraded) || target.username !== '' || target.password !== '')
    return null;
  return target;
}

function dispatcherFor({ url, allowPrivate, tls, timeoutMs }: EndpointOptions): Dispatcher {
  const secure = {
    rejectUnauthorized: tls.verify,
    ...readPemFiles(tls),
  };
  const options = {
    allowH2: false,
    // The limit of time is one for the whole exchange.
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: {
      ...secure,
      lookup: guardedLookup(allowPrivate),
      timeout: Math.min(connectTimeoutMs, timeoutMs),
    },
  };
  // Through a proxy nobody here would see which address is spoken to.
  if (!allowPrivate || !proxied(url)) return new Agent(options);
  return new EnvHttpProxyAgent({ ...options, requestTls: secure });
}

/** The environment names a proxy that may apply to the URL; whether NO_PROXY exempts it, the agent knows. */
export function proxied({ protocol }: URL): boolean {
  const { http_proxy, HTTP_PROXY, https_proxy, HTTPS_PROXY } = process.env;
  const plain = http_proxy ?? HTTP_PROXY;
  return Boolean(protocol === 'https:' ? (https_proxy ?? HTTPS_PROXY ?? plain) : plain);
}
