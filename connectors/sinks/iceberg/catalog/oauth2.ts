/** Bearer tokens from an OAuth2 server by the client credentials grant (RFC 6749, 4.4), fetched anew before they end. */
import type { Dispatcher } from 'undici';
import { TidemarkError } from '../../../../src/connector/failure.ts';
import { isObject, type Json, parseJson } from './exact-json.ts';
import { connectionFailure } from './failures.ts';
import { exchange } from './http-exchange.ts';
import type { Authenticator } from './rest-auth.ts';

export interface OAuth2Settings {
  tokenUrl: URL;
  /** Null where the server wants only a secret. */
  clientId: string | null;
  clientSecret: string;
  scope: string | null;
  /** Further fields of the form: `audience`, `resource`. */
  extra: Readonly<Record<string, string>>;
  timeoutMs: number;
}

interface Token {
  text: string;
  /** On this process's monotonic clock: a step of the wall clock makes no token older. */
  renewAtMs: number;
}

/** Renewed when a tenth of its life is left, at most five minutes. */
const renewShare = 0.1;
const earliestRenewalMs = 300_000;

export class OAuth2 implements Authenticator {
  readonly #settings: OAuth2Settings;
  readonly #dispatcher: Dispatcher;
  readonly #now: () => number;
  #token: Token | null = null;
  #fetching: Promise<Token> | null = null;

  constructor(settings: OAuth2Settings, dispatcher: Dispatcher, now: () => number = () => performance.now()) {
    this.#settings = settings;
    this.#dispatcher = dispatcher;
    this.#now = now;
  }

  async authenticate({ headers }: { headers: Readonly<Record<string, string>> }) {
    let token = this.#token;
    if (token === null || this.#now() >= token.renewAtMs) token = await this.#fetch();
    return { ...headers, authorization: `Bearer ${token.text}` };
  }

  async renew(): Promise<boolean> {
    await this.#fetch();
    return true;
  }

  /** Requests that need a token at the same time wait for the same one. */
  #fetch(): Promise<Token> {
    this.#fetching ??= this.#ask()
      .then((token) => {
        this.#token = token;
        return token;
      })
      .finally(() => {
        this.#fetching = null;
      });
    return this.#fetching;
  }

  async #ask(): Promise<Token> {
    const { tokenUrl, clientId, clientSecret, scope, extra, timeoutMs } = this.#settings;
    const form = new URLSearchParams({ grant_type: 'client_credentials', ...extra });
    if (clientId !== null) form.set('client_id', clientId);
    form.set('client_secret', clientSecret);
    if (scope !== null) form.set('scope', scope);
    const what = 'cannot get a token';
    const asked = this.#now();
    let answer: { status: number; text: string };
    try {
      answer = await exchange(this.#dispatcher, tokenUrl, {
        method: 'POST',
        path: `${tokenUrl.pathname}${tokenUrl.search}`,
        headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json' },
        body: form.toString(),
        timeoutMs,
      });
    } catch (error) {
      throw connectionFailure(error, what, 'catalog', true);
    }
    if (answer.status >= 500 || answer.status === 429) {
      throw new TidemarkError('TM401', `${what}: the token server answered HTTP ${answer.status}`);
    }
    if (answer.status < 200 || answer.status >= 300) throw refused(answer);
    return tokenOf(answer.text, asked);
  }
}

function refused({ status, text }: { status: number; text: string }): TidemarkError {
  const body = bodyOf(text);
  const code = isObject(body) && typeof body.error === 'string' ? body.error : '';
  const named = /^[a-z_]{1,60}$/.test(code) ? ` ${code}` : '';
  return new TidemarkError('TM402', `the token server refused the credentials (HTTP ${status}${named})`, {
    remedy: 'Check the client id, the secret and the scope in iceberg.catalog.oauth2.*.',
  });
}

function tokenOf(text: string, askedAtMs: number): Token {
  const body = bodyOf(text);
  const token = isObject(body) ? body.access_token : undefined;
  if (!isObject(body) || typeof token !== 'string' || token === '') {
    throw new TidemarkError('TM402', 'the token server answered no token', {
      remedy: 'Check iceberg.catalog.oauth2.token.url: it must be an OAuth2 token endpoint.',
    });
  }
  const seconds = Number(body.expires_in);
  // Without a life it is used until the catalog refuses it.
  if (!(seconds > 0)) return { text: token, renewAtMs: Number.POSITIVE_INFINITY };
  const lifeMs = seconds * 1000;
  return { text: token, renewAtMs: askedAtMs + lifeMs - Math.min(lifeMs * renewShare, earliestRenewalMs) };
}

function bodyOf(text: string): Json {
  try {
    return parseJson(text);
  } catch {
    return null;
  }
}
