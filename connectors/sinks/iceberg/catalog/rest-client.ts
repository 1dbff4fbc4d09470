/** Requests to a REST catalog: credentials, patience, and what failures mean. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Dispatcher } from 'undici';
import { TidemarkError } from '../../../../src/connector/failure.ts';
import { type Json, parseJson, printJson } from './exact-json.ts';
import {
  CommitStateUnknown,
  connectionFailure,
  errorType,
  failureOf,
  type HttpFailure,
  mayPass,
  type Subject,
} from './failures.ts';
import { type ExchangeAnswer, exchange, neverSent } from './http-exchange.ts';
import type { Authenticator } from './rest-auth.ts';
import { queryText } from './rest-paths.ts';
import { retryAfterOf } from './retry-after.ts';

export interface RestClientSettings {
  /** Of the catalog, without `/v1`. */
  uri: URL;
  authenticator: Authenticator;
  headers: Readonly<Record<string, string>>;
  timeoutMs: number;
}

export interface RestRequest {
  method: 'GET' | 'HEAD' | 'POST' | 'DELETE';
  /** Behind the catalog's URI, percent-encoded: `/v1/…`. */
  path: string;
  query?: Readonly<Record<string, string>>;
  headers?: Readonly<Record<string, string>>;
  body?: unknown;
  /** What is tried, for messages: `load table a.b`. */
  what: string;
  subject: Subject;
  /** Statuses from 400 on that are answers here and no failures. */
  expected?: readonly number[];
}

export interface RestAnswer {
  status: number;
  /** Null where there is none. */
  body: Json;
  /** The server's name for the error, from status 400 on. */
  errorType: string | null;
}

const tries = 4;
const firstPauseMs = 200;
/** Longer than this the caller waits, who knows what else there is to do. */
const longestPauseMs = 10_000;

export class RestClient {
  readonly #settings: RestClientSettings;
  readonly #dispatcher: Dispatcher;

  constructor(settings: RestClientSettings, dispatcher: Dispatcher) {
    this.#settings = settings;
    this.#dispatcher = dispatcher;
  }

  /** Tried again while nothing can have happened (and of requests that may be repeated, also else). @throws TidemarkError */
  async send(request: RestRequest): Promise<RestAnswer> {
    const { what, subject } = request;
    let renewed = false;
    for (let attempt = 1; ; attempt += 1) {
      const result = await this.#once(request);
      if (result instanceof TidemarkError) {
        if (result instanceof CommitStateUnknown || result.retry !== 'transient' || attempt === tries)
          throw result;
        await sleep(pauseMs(attempt, null));
        continue;
      }
      const { status } = result;
      if (status < 300) return { status, body: bodyOf(result, what, subject), errorType: null };
      const failure = httpFailure(result);
      if (request.expected?.includes(status)) return { status, body: null, errorType: failure.type };
      if ((status === 401 || status === 419) && !renewed) {
        renewed = true;
        if (await this.#settings.authenticator.renew()) continue;
      }
      const pause = pauseMs(attempt, failure.retryAfterMs);
      if (!mayPass(failure, subject) || attempt === tries || pause > longestPauseMs) {
        throw failureOf(failure, what, subject);
      }
      await sleep(pause);
    }
  }

  async close(): Promise<void> {
    await this.#dispatcher.close();
  }

  /** The answer, or why there is none. */
  async #once(request: RestRequest): Promise<ExchangeAnswer | TidemarkError> {
    const { method, what, subject, query = {} } = request;
    const { uri, authenticator, timeoutMs } = this.#settings;
    const path = `${uri.pathname.replace(/\/+$/, '')}${request.path}`;
    const body = request.body === undefined ? undefined : printJson(request.body);
    const plain = {
      accept: 'application/json',
      ...this.#settings.headers,
      ...request.headers,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    };
    const headers = await authenticator.authenticate({
      method,
      origin: uri,
      path,
      query,
      headers: plain,
      body: body ?? '',
    });
    try {
      return await exchange(this.#dispatcher, uri, {
        method,
        path: `${path}${queryText(query)}`,
        headers,
        ...(body === undefined ? {} : { body }),
        timeoutMs,
      });
    } catch (error) {
      return connectionFailure(error, what, subject, !neverSent(error));
    }
  }
}

function httpFailure(answer: ExchangeAnswer): HttpFailure {
  let body: Json = null;
  try {
    body = answer.text === '' ? null : parseJson(answer.text);
  } catch {
    // A proxy's page.
  }
  const retryAfterMs = retryAfterOf(answer.headers['retry-after'], Date.now());
  return { status: answer.status, type: errorType(body), retryAfterMs };
}

function bodyOf({ text }: ExchangeAnswer, what: string, subject: Subject): Json {
  if (text === '') return null;
  try {
    return parseJson(text);
  } catch (error) {
    if (subject === 'commit') throw new CommitStateUnknown(what, 'the answer is not JSON', { cause: error });
    throw new TidemarkError('TM101', `${what}: the answer is not JSON`, {
      remedy: 'Set iceberg.catalog.uri to an Iceberg REST catalog.',
    });
  }
}

function pauseMs(attempt: number, retryAfterMs: number | null): number {
  if (retryAfterMs !== null) return retryAfterMs;
  return firstPauseMs * 2 ** (attempt - 1) * (0.5 + Math.random());
}
