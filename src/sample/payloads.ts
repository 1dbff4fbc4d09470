/**
 * Event payloads. GitHub events carry the vendor's own published webhook examples (npm @octokit/webhooks-examples,
 * read at run time) with their ids and timestamps renewed; the other providers get bodies of our own making.
 */
import { createRequire } from 'node:module';
import { timestamp } from './clock.ts';
import type { Prng } from './prng.ts';
import { phrase } from './values.ts';

export interface Payload {
  eventType: string;
  action: string | null;
  /** JSON text. */
  json: string;
}

/** A JSON text cut at its ids and timestamps: texts[0] holes[0] texts[1] holes[1] … */
interface Template {
  eventType: string;
  action: string | null;
  texts: string[];
  holes: ('id' | 'timestamp')[];
}

let templates: Template[] | undefined;

/** A GitHub webhook body; every id and ISO timestamp in it is replaced, so that no two payloads are equal. */
export function githubPayload(prng: Prng, now: number): Payload {
  templates ??= loadTemplates();
  const template = prng.pick(templates);
  const when = `"${timestamp(now).slice(0, 19)}Z"`;
  let json = template.texts[0]!;
  // One draw per payload and a stride per hole: drawing every id anew would double the cost of a payload.
  let id = prng.integer(1, 0xffffffff);
  for (let i = 0; i < template.holes.length; i++) {
    id += 7919;
    json += template.holes[i] === 'id' ? id : when;
    json += template.texts[i + 1]!;
  }
  return { eventType: `github.${template.eventType}`, action: template.action, json };
}

/**
 * A body as identity and cloud providers send it: nested, with text beyond ASCII, empty values, and whole numbers
 * larger than a double holds exactly.
 */
export function providerPayload(prng: Prng, provider: string, scopes: readonly string[]): Payload {
  const [eventType, action] = prng.pick(providerEvents);
  const big = BigInt(prng.uint32()) * 0x100000000n + BigInt(prng.uint32()) + (1n << 63n);
  const body = {
    actor: { display: phrase(prng, 2), type: prng.pick(['user', 'app', 'service']), nickname: '' },
    target: { path: [prng.uuid(), null, { depth: { deeper: { deepest: prng.unit() } } }] },
    scopes,
    client: { agent: phrase(prng, 6), trusted: prng.chance(0.7), geo: null },
    retries: prng.integer(0, 3),
    ratio: prng.unit() * 1e-7,
  };
  // JSON.stringify cannot write such numbers, so they are put in front by hand.
  const json = `{"serial":${big},"debt":-${big}0.00${prng.uint32()},${JSON.stringify(body).slice(1)}`;
  return { eventType: `${provider}.${eventType}`, action, json };
}

const providerEvents: [string, string | null][] = [
  ['session.start', 'login'],
  ['session.end', 'logout'],
  ['oauth.grant', 'consent'],
  ['oauth.revoke', 'revoke'],
  ['policy.evaluate', null],
  ['key.rotate', 'rotate'],
  ['file.share', 'create'],
  ['role.assume', 'assume'],
];

function loadTemplates(): Template[] {
  const definitions = createRequire(import.meta.url)('@octokit/webhooks-examples') as {
    name: string;
    examples: { action?: unknown }[];
  }[];
  return definitions.flatMap(({ name, examples }) =>
    examples.map((example) => {
      const action = typeof example.action === 'string' ? example.action : null;
      return { eventType: name, action, ...cut(JSON.stringify(example)) };
    }),
  );
}

function cut(json: string): Pick<Template, 'texts' | 'holes'> {
  const texts: string[] = [];
  const holes: Template['holes'] = [];
  let from = 0;
  for (const match of json.matchAll(
    /(?<="(?:[a-z_]*_)?id":)\d+|"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"/g,
  )) {
    texts.push(json.slice(from, match.index));
    holes.push(match[0].startsWith('"') ? 'timestamp' : 'id');
    from = match.index + match[0].length;
  }
  texts.push(json.slice(from));
  return { texts, holes };
}
