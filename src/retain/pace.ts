/**
 * How fast rows go: as fast as their policies let them where nobody else is there, and else so that whoever is there does not
 * feel it. Small transactions stand for the application's, timed by the server itself (migrations/retention/0005): while
 * rows go, and now and then at rest. Where they take longer while rows go, fewer go.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { endConnection } from '../replicate/source.ts';
import { nobody, PaceRate } from './pace-rate.ts';
import type { Policy } from './policies.ts';

/** Of so many looks while others are there, one is at rest. */
const restEvery = 10;
/** For what a batch leaves behind, before a look at rest: reader and destinations have it a little later. */
const calmMs = 300;
/** Of one look: so many small transactions, and as long between two of them. */
const look = { transactions: 50, pauseSeconds: 0.02 };
const lookMs = 1000;
const retryMs = 10_000;
const batchesASecond = 8;
const leastBatch = 20;

/** Of all tables of a source: they share its server. */
export class Pace {
  readonly #connect: () => Promise<Client>;
  readonly #failed: (error: unknown) => void;
  readonly #rate = new PaceRate();
  #client: Client | null = null;
  #looking: Promise<void> | null = null;
  #retryAt = 0;
  #closed = false;
  /** Nothing goes before it is over. */
  #rest: Promise<unknown> | null = null;
  /** Of the table whose rows go. */
  #most = 0;
  #batches = 0;
  /** When the next batch may go, by performance.now(). */
  #nextAt = 0;

  /** @param connect to the source, for looks at it @param failed why there are none; it goes on as it was */
  constructor(connect: () => Promise<Client>, failed: (error: unknown) => void) {
    this.#connect = connect;
    this.#failed = failed;
  }

  get rowsPerSecond(): number {
    return Math.min(this.#rate.current, this.#most);
  }

  /** Waits until a batch may go. @returns how many rows it may have */
  async admit({ rowsPerSecond, batchRows }: Policy, signal: AbortSignal): Promise<number> {
    this.#most = rowsPerSecond;
    if (this.#batches > 0 && performance.now() >= this.#retryAt) this.#looking ??= this.#look();
    for (;;) {
      await this.#rest?.catch(() => {});
      const wait = this.#nextAt - performance.now();
      if (wait > 0) await sleep(wait, undefined, { signal }).catch(() => {});
      if (!this.#rest || signal.aborted) break;
    }
    const rows = Math.max(leastBatch, Math.round(this.rowsPerSecond / batchesASecond));
    return Math.min(batchRows, rows);
  }

  /** @param beganAt by performance.now() */
  went(rows: number, beganAt: number): void {
    this.#batches++;
    // Time in which nothing could go is not made up for.
    this.#nextAt = Math.max(this.#nextAt, beganAt) + (rows / this.rowsPerSecond) * 1000;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#leave();
    await this.#looking;
  }

  async #leave(): Promise<void> {
    const client = this.#client;
    this.#client = null;
    if (client) await endConnection(client);
  }

  /** As long as rows go. */
  async #look(): Promise<void> {
    try {
      this.#client ??= await this.#connect();
      for (let looks = 0; !this.#closed; looks++) {
        const before = this.#batches;
        const others = await this.#sample(this.#client, () => sleep(lookMs));
        if (others < nobody) this.#rate.whileGoing({ others, slowMs: null }, this.#most);
        else if (!this.#rate.knowsRest || looks % restEvery === 0) await this.#lookAtRest(this.#client);
        else await this.#lookWhileGoing(this.#client);
        if (this.#batches === before) break;
      }
    } catch (error) {
      if (!this.#closed) this.#failed(error);
      this.#retryAt = performance.now() + retryMs;
      await this.#leave();
    } finally {
      this.#looking = null;
    }
  }

  async #lookAtRest(client: Client): Promise<void> {
    this.#rest = (async () => {
      await sleep(calmMs);
      this.#rate.atRest({ others: nobody, slowMs: await feel(client) });
    })();
    try {
      await this.#rest;
    } finally {
      this.#rest = null;
    }
  }

  async #lookWhileGoing(client: Client): Promise<void> {
    const before = this.#batches;
    const slowMs = await feel(client);
    // Otherwise it was a rest for most of the time.
    if (this.#batches - before >= 2) this.#rate.whileGoing({ others: nobody, slowMs }, this.#most);
  }

  /** Others' transactions a second while `during` lasts. */
  async #sample(client: Client, during: () => Promise<void>): Promise<number> {
    const own = this.#batches;
    const beganAt = performance.now();
    const before = await transactions(client);
    await during();
    const all = (await transactions(client)) - before - 1;
    return Math.max(0, (all - (this.#batches - own)) / ((performance.now() - beganAt) / 1000));
  }
}

async function transactions(client: Client): Promise<number> {
  const { rows } = await client.query<{ count: number }>(
    'select (xact_commit + xact_rollback)::float8 as count from pg_stat_database where datname = current_database()',
  );
  return rows[0]!.count;
}

/** How long the slow ones of some small transactions take, ms. */
async function feel(client: Client): Promise<number> {
  const { rows } = await client.query<{ slow: number }>(
    `call tidemark_retention.feel(${look.transactions}, ${look.pauseSeconds}, null)`,
  );
  return rows[0]!.slow;
}
