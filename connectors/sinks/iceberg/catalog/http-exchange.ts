/** One request and its whole answer, with one limit of time. */
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { Agent, type Dispatcher, EnvHttpProxyAgent } from 'undici';
import { type PemPaths, readPemFiles } from '../../../../src/connector/pem-files.ts';

/** Paths of PEM files. */
export interface TlsFiles extends PemPaths {
  /** False: any certificate will do. */
  verify: boolean;
}

export interface Exchange {
  method: Dispatcher.HttpMethod;
  /** With the query, percent-encoded; sent as it is. */
  path: string;
  headers: Record<string, string>;
  body?: string;
  timeoutMs: number;
}

export interface ExchangeAnswer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  text: string;
}

const connectTimeoutMs = 10_000;
const unzip = promisify(gunzip);

/** Connections that are kept, through the environment's proxy where it names one. @throws TidemarkError TM102 */
export function makeDispatcher(tls: TlsFiles): Dispatcher {
  const secure = {
    rejectUnauthorized: tls.verify,
    ...readPemFiles(tls),
  };
  const options = {
    allowH2: false,
    // The limit of time is one for the whole exchange.
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: { ...secure, timeout: connectTimeoutMs },
  };
  const { http_proxy, HTTP_PROXY, https_proxy, HTTPS_PROXY } = process.env;
  if (!(http_proxy ?? HTTP_PROXY ?? https_proxy ?? HTTPS_PROXY)) return new Agent(options);
  return new EnvHttpProxyAgent({ ...options, requestTls: secure });
}

/** @throws the HTTP library's errors, and Overdue */
export async function exchange(
  dispatcher: Dispatcher,
  origin: URL,
  { method, path, headers, body, timeoutMs }: Exchange,
): Promise<ExchangeAnswer> {
  const overdue = new AbortController();
  const timer = setTimeout(() => overdue.abort(), timeoutMs);
  try {
    const answer = await dispatcher.request({
      origin: origin.origin,
      method,
      path,
      headers: { 'accept-encoding': 'gzip', ...headers },
      body: body ?? null,
      signal: overdue.signal,
    });
    const bytes = Buffer.from(await answer.body.arrayBuffer());
    const zipped = answer.headers['content-encoding'] === 'gzip' && bytes.length > 0;
    const text = (zipped ? await unzip(bytes) : bytes).toString('utf8');
    return { status: answer.statusCode, headers: answer.headers, text };
  } catch (error) {
    throw overdue.signal.aborted ? new Overdue(timeoutMs) : error;
  } finally {
    clearTimeout(timer);
  }
}

export class Overdue extends Error {
  constructor(timeoutMs: number) {
    super(`no answer within ${timeoutMs} ms`);
    this.name = `timeout of ${timeoutMs} ms`;
  }
}

/** The request cannot have reached the server: no connection was made. */
export function neverSent(error: unknown): boolean {
  const codes = [
    'ECONNREFUSED',
    'ENOTFOUND',
    'EAI_AGAIN',
    'EHOSTUNREACH',
    'ENETUNREACH',
    'UND_ERR_CONNECT_TIMEOUT',
  ];
  for (let each = error; each instanceof Error; each = each.cause) {
    const { code, errors } = each as { code?: unknown; errors?: unknown[] };
    if (typeof code === 'string' && codes.includes(code)) return true;
    if (Array.isArray(errors) && errors.length > 0 && errors.every(neverSent)) return true;
  }
  return false;
}
