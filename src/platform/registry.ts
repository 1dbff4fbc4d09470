/** The Schema Registry (Confluent's API): registering goes through @kafkajs/confluent-schema-registry. */
import { Agent as HttpAgent, request as httpRequest } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { COMPATIBILITY, SchemaRegistry, SchemaType } from '@kafkajs/confluent-schema-registry';
import { TidemarkError } from './errors.ts';
import type { Logger } from './log.ts';
import { errorFields } from './log.ts';
import type { Compatibility, RegistryConfig } from './resolved-config.ts';

interface RegistryAnswer {
  status: number;
  body: string;
}

export interface LatestSchema {
  id: number;
  version: number;
  schema: string;
}

/** Requests that a registry gets from us at once. */
const versionsAtOnce = 8;

export class RegistryClient {
  readonly #config: RegistryConfig;
  readonly #log: Logger;
  readonly #library: SchemaRegistry;
  readonly #agent: HttpAgent;
  readonly #schemas = new Map<number, Promise<string>>();
  readonly #closed = new AbortController();

  constructor(config: RegistryConfig, log: Logger) {
    this.#config = config;
    this.#log = log;
    const secure = config.url.startsWith('https:');
    this.#agent = secure
      ? new HttpsAgent({ keepAlive: true, ...(config.tls === false ? {} : config.tls) })
      : new HttpAgent({ keepAlive: true });
    const auth =
      config.username === null
        ? {}
        : { auth: { username: config.username, password: config.password ?? '' } };
    // The library's own retry gives up in seconds; ours waits as long as it takes and says so.
    this.#library = new SchemaRegistry({
      host: config.url,
      agent: this.#agent,
      retry: { retries: 0 },
      ...auth,
    });
  }

  /** Schema text by id; cached. Waits while the registry is down. @throws TidemarkError TM305 for an unknown id */
  schemaById(id: number): Promise<string> {
    let found = this.#schemas.get(id);
    if (!found) {
      found = this.#waiting('read a schema', async () => {
        const { status, body } = await this.#request('GET', `/schemas/ids/${id}`);
        if (status === 200) return (JSON.parse(body) as { schema: string }).schema;
        throw new TidemarkError('TM305', `the registry has no schema with id ${id} (status ${status})`);
      });
      found.catch(() => this.#schemas.delete(id));
      this.#schemas.set(id, found);
    }
    return found;
  }

  /** Newest version of a subject, or null. Waits while the registry is down. */
  latest(subject: string): Promise<LatestSchema | null> {
    return this.#waiting('read a subject', async () => {
      const { status, body } = await this.#request(
        'GET',
        `/subjects/${encodeURIComponent(subject)}/versions/latest`,
      );
      if (status === 404) return null;
      if (status !== 200)
        throw new TidemarkError('TM305', `the registry answered ${status} for subject ${subject}`);
      const { id, version, schema } = JSON.parse(body) as LatestSchema;
      return { id, version, schema };
    });
  }

  /** All versions of a subject, oldest first. Waits while the registry is down. */
  async versions(subject: string): Promise<LatestSchema[]> {
    const path = `/subjects/${encodeURIComponent(subject)}/versions`;
    const read = async (what: string, at: string): Promise<unknown> => {
      const { status, body } = await this.#request('GET', at);
      if (status === 404) return null;
      if (status !== 200)
        throw new TidemarkError('TM305', `the registry answered ${status} for ${what} of subject ${subject}`);
      return JSON.parse(body);
    };
    return this.#waiting('read a subject', async () => {
      const numbers = ((await read('the versions', path)) ?? []) as number[];
      numbers.sort((a, b) => a - b);
      const found: LatestSchema[] = [];
      for (let start = 0; start < numbers.length; start += versionsAtOnce) {
        const some = numbers.slice(start, start + versionsAtOnce);
        const reads = some.map((number) => read(`version ${number}`, `${path}/${number}`));
        // Null: it was deleted meanwhile.
        for (const version of (await Promise.all(reads)) as (LatestSchema | null)[])
          if (version) found.push({ id: version.id, version: version.version, schema: version.schema });
      }
      return found;
    });
  }

  /** A subject's own compatibility, or null where it has none. Waits while the registry is down. */
  compatibilityOf(subject: string): Promise<string | null> {
    return this.#waiting('read the compatibility of a subject', async () => {
      const { status, body } = await this.#request('GET', `/config/${encodeURIComponent(subject)}`);
      if (status === 404) return null;
      if (status === 200) return (JSON.parse(body) as { compatibilityLevel: string }).compatibilityLevel;
      throw new TidemarkError('TM305', `the registry answered ${status} for the settings of ${subject}`);
    });
  }

  /** Sets a subject's compatibility, by the registry's own name for it. Waits while the registry is down. */
  setCompatibility(subject: string, compatibility: Compatibility): Promise<void> {
    return this.#waiting('set the compatibility of a subject', async () => {
      const path = `/config/${encodeURIComponent(subject)}`;
      const { status } = await this.#request('PUT', path, JSON.stringify({ compatibility }));
      if (status === 200) return;
      throw new TidemarkError(
        'TM305',
        `the registry answered ${status} when ${subject} was to be ${compatibility}`,
      );
    });
  }

  /** Whether the registry itself finds the schema compatible with the subject's versions. */
  isCompatible(subject: string, schema: string): Promise<boolean> {
    return this.#waiting('ask for compatibility', async () => {
      const path = `/compatibility/subjects/${encodeURIComponent(subject)}/versions/latest`;
      const { status, body } = await this.#request('POST', path, JSON.stringify({ schema }));
      if (status === 404) return true;
      if (status === 200) return (JSON.parse(body) as { is_compatible: boolean }).is_compatible;
      throw new TidemarkError('TM305', `the registry answered ${status} when asked about subject ${subject}`);
    });
  }

  /**
   * Registers under a subject, whose compatibility is set when it is made; the same text again gives the same id.
   * @returns the schema's id
   * @throws TidemarkError TM305 when the registry refuses it
   */
  register(subject: string, schema: string, compatibility: Compatibility = 'BACKWARD'): Promise<number> {
    return this.#waiting('register a schema', async () => {
      try {
        const { id } = await this.#library.register(
          { type: SchemaType.AVRO, schema },
          { subject, compatibility: COMPATIBILITY[compatibility] },
        );
        return id;
      } catch (error) {
        if ((error as Error).name === 'ConfluentSchemaRegistryCompatibilityError')
          await this.#restoreCompatibility(subject, error);
        const status = (error as { status?: number }).status;
        if (status === undefined || status >= 500) throw error;
        // The library answers 400 in its own name where the registry did not answer at all: ask once more.
        await this.ping();
        throw new TidemarkError('TM305', `the registry refused subject ${subject} (status ${status})`, {
          cause: error,
        });
      }
    });
  }

  /**
   * As register, under a subject whose compatibility is known to be right: one request.
   * @throws TidemarkError TM305 when the registry refuses it
   */
  registerNext(subject: string, schema: string): Promise<number> {
    return this.#waiting('register a schema', async () => {
      const path = `/subjects/${encodeURIComponent(subject)}/versions`;
      const { status, body } = await this.#request('POST', path, JSON.stringify({ schema }));
      if (status === 200) return (JSON.parse(body) as { id: number }).id;
      throw new TidemarkError('TM305', `the registry refused subject ${subject} (status ${status})`);
    });
  }

  /**
   * The library registers a subject and then sets its compatibility: a process that died in between left it at the
   * registry's default, and every later one would be told that they differ. What somebody chose stays.
   * @throws TidemarkError TM305 where the subject has another level
   */
  async #restoreCompatibility(subject: string, cause: unknown): Promise<void> {
    const path = `/config/${encodeURIComponent(subject)}`;
    const { body } = await this.#request('GET', path);
    const { compatibilityLevel: level } = JSON.parse(body) as { compatibilityLevel?: string };
    if (level !== undefined && level !== 'NONE' && level !== 'BACKWARD') {
      throw new TidemarkError('TM305', `subject ${subject} has compatibility ${level}, BACKWARD is needed`, {
        cause,
      });
    }
    await this.#request('PUT', path, JSON.stringify({ compatibility: 'BACKWARD' }));
  }

  /** One request without waiting. @throws TidemarkError TM304 when the registry does not answer */
  async ping(): Promise<void> {
    const { status } = await this.#request('GET', '/subjects');
    if (status !== 200) throw new TidemarkError('TM304', `the registry answered ${status}`);
  }

  /** Removes subjects for good. @returns how many */
  async deleteSubjects(which: (subject: string) => boolean): Promise<number> {
    const { status, body } = await this.#request('GET', '/subjects');
    if (status !== 200) throw new TidemarkError('TM304', `the registry answered ${status}`);
    const subjects = (JSON.parse(body) as string[]).filter(which);
    for (const subject of subjects) {
      // Permanent deletion is allowed only after a soft one.
      await this.#request('DELETE', `/subjects/${encodeURIComponent(subject)}`);
      await this.#request('DELETE', `/subjects/${encodeURIComponent(subject)}?permanent=true`);
    }
    return subjects.length;
  }

  /** Whatever waits for the registry ends with TM304. */
  close(): void {
    this.#closed.abort();
    this.#agent.destroy();
  }

  async #waiting<T>(what: string, run: () => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await run();
      } catch (error) {
        if (error instanceof TidemarkError && error.code === 'TM305') throw error;
        if (this.#closed.signal.aborted)
          throw new TidemarkError('TM304', 'the registry client was closed', { cause: error });
        const delayMs = Math.min(250 * 2 ** attempt, 5000);
        this.#log.warn(`cannot ${what}: the Schema Registry does not answer; waiting`, {
          ...errorFields(error),
          code: 'TM304',
          delayMs,
        });
        await sleep(delayMs, undefined, { signal: this.#closed.signal }).catch(() => {});
      }
    }
  }

  #request(method: 'GET' | 'DELETE' | 'PUT' | 'POST', path: string, body?: string): Promise<RegistryAnswer> {
    const url = new URL(`${this.#config.url.replace(/\/$/, '')}${path}`);
    const { username, password } = this.#config;
    const request = url.protocol === 'https:' ? httpsRequest : httpRequest;
    return new Promise((resolve, reject) => {
      const outgoing = request(
        url,
        {
          method,
          agent: this.#agent,
          timeout: 10000,
          headers: {
            accept: 'application/vnd.schemaregistry.v1+json, application/json',
            ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          },
          ...(username === null ? {} : { auth: `${username}:${password ?? ''}` }),
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('error', reject);
          response.on('end', () => {
            const status = response.statusCode ?? 0;
            if (status >= 500) reject(new TidemarkError('TM304', `the registry answered ${status}`));
            else resolve({ status, body: Buffer.concat(chunks).toString('utf8') });
          });
        },
      );
      outgoing.on('timeout', () => outgoing.destroy(new Error('no answer within 10 s')));
      outgoing.on('error', (error) =>
        reject(new TidemarkError('TM304', 'the registry does not answer', { cause: error })),
      );
      outgoing.end(body);
    });
  }
}
