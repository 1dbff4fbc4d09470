/**
 * The way to a REST catalog, on which things happen: answers of its own, connections that break before or after the
 * catalog got the request, requests that arrive late, and tokens that end. Otherwise requests pass as they are.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import { buffer } from 'node:stream/consumers';

export interface FrontAnswer {
  status: number;
  headers?: Record<string, string>;
  body?: string;
}

export type Incident =
  /** The catalog never sees the request. */
  | { kind: 'answer'; answer: FrontAnswer }
  | { kind: 'break' }
  /** It does, and the client learns nothing, or something else. */
  | { kind: 'forward and break' }
  | { kind: 'forward and answer'; answer: FrontAnswer }
  /** It gets the request so many milliseconds after the client's connection broke. */
  | { kind: 'break and forward later'; afterMs: number }
  | { kind: 'hold' };

export interface TokenRules {
  clientId: string;
  clientSecret: string;
  scope: string;
  /** As the token server says it; the front takes a token for as long as `acceptedMs`. */
  expiresInSeconds: number | null;
  acceptedMs: number;
  /** What a token that ended is answered with. */
  expiredStatus: 401 | 419;
}

export interface SeenRequest {
  method: string;
  url: string;
  headers: IncomingMessage['headers'];
}

export interface CatalogFront {
  uri: string;
  readonly seen: SeenRequest[];
  /** The next requests whose method and path (and operation, of AWS) fit meet with these, one each. */
  expect(fits: RegExp, ...incidents: Incident[]): void;
  /** Nothing more is planned. */
  forget(): void;
  /** Changes what the catalog is asked for. */
  rewrite(change: (url: string) => string): void;
  /** Changes what the catalog answers. */
  alter(change: (body: string) => string): void;
  /** From now on only requests with a token of `/token` pass. */
  demandTokens(rules: TokenRules): void;
  /** Tokens given so far. */
  readonly tokens: number;
  /** Waits for what was to be forwarded later. */
  settled(): Promise<void>;
  stop(): void;
}

export async function startCatalogFront(uri: string): Promise<CatalogFront> {
  const seen: SeenRequest[] = [];
  const late: Promise<unknown>[] = [];
  let planned: { fits: RegExp; incident: Incident }[] = [];
  let change = (url: string) => url;
  let altered: ((body: string) => string) | null = null;
  let gate: TokenGate | null = null;

  const server = createServer(async (incoming, response) => {
    const { method = '', url = '', headers } = incoming;
    const body = await buffer(incoming).catch(() => null);
    if (body === null) return;
    if (gate !== null && url === '/token') return send(response, gate.issue(body.toString()));
    seen.push({ method, url, headers });
    const refusal = gate?.refusal(headers.authorization);
    if (refusal) return send(response, refusal);
    const operation = headers['x-amz-target'] === undefined ? '' : ` ${headers['x-amz-target']}`;
    const found = planned.findIndex(({ fits }) => fits.test(`${method} ${url}${operation}`));
    const incident = found < 0 ? null : planned.splice(found, 1)[0]!.incident;
    // What is changed must not come packed.
    const { 'accept-encoding': _, ...plain } = headers;
    const forwarded = () =>
      forward(uri, { method, url: change(url), headers: altered ? plain : headers }, body);
    switch (incident?.kind) {
      case 'answer':
        return send(response, incident.answer);
      case 'break':
        return void response.destroy();
      case 'hold':
        return;
      case 'break and forward later':
        response.destroy();
        late.push(new Promise((done) => setTimeout(done, incident.afterMs)).then(forwarded));
        return;
    }
    const answer = await forwarded().catch(() => null);
    if (answer === null || incident?.kind === 'forward and break') return void response.destroy();
    if (incident?.kind === 'forward and answer') return send(response, incident.answer);
    if (altered === null) return void response.writeHead(answer.status, answer.headers).end(answer.body);
    const { 'content-length': _length, 'transfer-encoding': _transfer, ...rest } = answer.headers;
    response.writeHead(answer.status, rest).end(altered(answer.body.toString()));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  return {
    uri: `http://127.0.0.1:${port}`,
    seen,
    expect(fits, ...incidents) {
      planned = [...planned, ...incidents.map((incident) => ({ fits, incident }))];
    },
    forget() {
      planned = [];
    },
    rewrite(given) {
      change = given;
    },
    alter(given) {
      altered = given;
    },
    demandTokens(rules) {
      gate = new TokenGate(rules);
    },
    get tokens() {
      return gate?.issued ?? 0;
    },
    async settled() {
      await Promise.all(late.splice(0));
    },
    stop() {
      server.closeAllConnections();
      server.close();
    },
  };
}

function send(response: ServerResponse, { status, headers = {}, body = '' }: FrontAnswer): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(body);
}

async function forward(uri: string, { method, url, headers }: SeenRequest, body: Buffer) {
  const { hostname, port } = new URL(uri);
  // A signature covers the host header: it stays.
  const outgoing = request({ hostname, port, method, path: url, headers });
  outgoing.end(body);
  const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
  return { status: answer.statusCode!, headers: answer.headers, body: await buffer(answer) };
}

/** An OAuth2 token endpoint, and the check of what it gave. */
class TokenGate {
  issued = 0;
  readonly #rules: TokenRules;
  readonly #valid = new Map<string, number>();

  constructor(rules: TokenRules) {
    this.#rules = rules;
  }

  issue(form: string): FrontAnswer {
    const { clientId, clientSecret, scope, expiresInSeconds, acceptedMs } = this.#rules;
    const asked = new URLSearchParams(form);
    const granted =
      asked.get('grant_type') === 'client_credentials' &&
      asked.get('client_id') === clientId &&
      asked.get('client_secret') === clientSecret;
    if (!granted) return { status: 401, body: JSON.stringify({ error: 'invalid_client' }) };
    if (asked.get('scope') !== scope)
      return { status: 400, body: JSON.stringify({ error: 'invalid_scope' }) };
    this.issued += 1;
    const token = `token-${this.issued}`;
    this.#valid.set(token, Date.now() + acceptedMs);
    const life = expiresInSeconds === null ? {} : { expires_in: expiresInSeconds };
    return { status: 200, body: JSON.stringify({ access_token: token, token_type: 'bearer', ...life }) };
  }

  refusal(authorization: string | undefined): FrontAnswer | null {
    const until = this.#valid.get(authorization?.replace(/^Bearer /, '') ?? '');
    const error = (status: number, type: string) => ({
      status,
      body: JSON.stringify({ error: { message: 'refused', type, code: status } }),
    });
    if (until === undefined) return error(401, 'NotAuthorizedException');
    if (Date.now() > until) return error(this.#rules.expiredStatus, 'AuthenticationTimeoutException');
    return null;
  }
}
