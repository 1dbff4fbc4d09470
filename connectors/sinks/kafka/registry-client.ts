/**
 * Registers schemas (Confluent's API). The library that the pipeline uses sets the subject's compatibility as well, and
 * fails where somebody chose another: here it is the target's owners who choose.
 */
import { Agent as HttpAgent, request as httpRequest } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { RegistrySettings } from './settings.ts';

const answerWithinMs = 10_000;

interface Answer {
  status: number;
  body: string;
}

export class RegistryClient {
  readonly #settings: RegistrySettings;
  readonly #secure: boolean;
  readonly #agent: HttpAgent;

  constructor(settings: RegistrySettings) {
    this.#settings = settings;
    this.#secure = settings.url.startsWith('https:');
    this.#agent = this.#secure
      ? new HttpsAgent({ keepAlive: true, ...(settings.tls === false ? {} : settings.tls) })
      : new HttpAgent({ keepAlive: true });
  }

  /**
   * The same schema again gives the same id.
   * @throws TidemarkError TM304 where the registry does not answer, TM305 where it refuses the schema, TM402
   */
  async register(subject: string, schema: string): Promise<number> {
    const path = `/subjects/${encodeURIComponent(subject)}/versions`;
    const { status, body } = await this.#request('POST', path, JSON.stringify({ schema }));
    if (status === 200) return (JSON.parse(body) as { id: number }).id;
    if (status === 409) {
      const setting = `${this.#settings.url}/config/${encodeURIComponent(subject)}`;
      throw new TidemarkError(
        'TM305',
        `the target's registry finds the new schema of subject ${subject} incompatible`,
        {
          remedy: `Let it through once: curl -X PUT -H 'content-type: application/json' -d '{"compatibility":"NONE"}' ${setting}; or give the table to a new destination with another topic.name. Delivery goes on by itself.`,
        },
      );
    }
    throw this.#refusal(status, `subject ${subject}`);
  }

  /** @throws TidemarkError TM304, TM402 */
  async ping(): Promise<void> {
    const { status } = await this.#request('GET', '/subjects');
    if (status !== 200) throw this.#refusal(status, 'the list of subjects');
  }

  close(): void {
    this.#agent.destroy();
  }

  #refusal(status: number, what: string): TidemarkError {
    if (status === 401 || status === 403) {
      return new TidemarkError('TM402', `the target's registry refused ${what} (status ${status})`, {
        remedy: 'Set registry.username and registry.password to a user that may write to the subjects.',
      });
    }
    return new TidemarkError('TM305', `the target's registry refused ${what} (status ${status})`);
  }

  #request(method: 'GET' | 'POST', path: string, body?: string): Promise<Answer> {
    const { url, credentials } = this.#settings;
    const request = this.#secure ? httpsRequest : httpRequest;
    const headers = {
      accept: 'application/vnd.schemaregistry.v1+json, application/json',
      ...(body === undefined ? {} : { 'content-type': 'application/vnd.schemaregistry.v1+json' }),
    };
    const auth = credentials && `${credentials.username}:${credentials.password}`;
    const options = {
      method,
      agent: this.#agent,
      headers,
      timeout: answerWithinMs,
      ...(auth ? { auth } : {}),
    };
    return new Promise((resolve, reject) => {
      const failed = (what: string, cause?: unknown) =>
        reject(
          new TidemarkError('TM304', `the target's registry ${what}`, {
            cause,
            remedy: 'Check registry.url of the destination and the server; delivery goes on by itself.',
          }),
        );
      const outgoing = request(new URL(`${url}${path}`), options, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', (error) => failed('does not answer', error));
        response.on('end', () => {
          const status = response.statusCode ?? 0;
          if (status >= 500 || status === 429) failed(`answered ${status}`);
          else resolve({ status, body: Buffer.concat(chunks).toString('utf8') });
        });
      });
      outgoing.on('timeout', () => outgoing.destroy(new Error('no answer within 10 s')));
      outgoing.on('error', (error) => failed('does not answer', error));
      outgoing.end(body);
    });
  }
}
