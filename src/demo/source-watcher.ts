/** What the source itself says about the slot, asked now and then over a connection that may be lost. */
import pg from 'pg';
import { readSlot } from '../replicate/source.ts';

const askEveryMs = 500;
/** The size of a database takes longer to find out. */
const weighEveryMs = 10_000;

export class SourceWatcher {
  /** Where the WAL ends; null before the first answer. */
  currentLsn: bigint | null = null;
  /** WAL that the slot keeps, bytes. */
  retainedBytes: number | null = null;
  /** Of the source database. */
  databaseBytes = 0;
  #client: pg.Client | null = null;
  #weighedAt = 0;
  #asking: Promise<void> | null = null;
  readonly #timer: NodeJS.Timeout;

  constructor(url: string, slot: string) {
    this.#timer = setInterval(() => {
      this.#asking ??= this.#ask(url, slot).finally(() => {
        this.#asking = null;
      });
    }, askEveryMs);
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#asking;
    await this.#client?.end().catch(() => {});
  }

  async #ask(url: string, slot: string): Promise<void> {
    try {
      const client = this.#client ?? (await this.#connect(url));
      const state = await readSlot(client, slot);
      const { rows } = await client.query(`select (pg_current_wal_lsn() - '0/0'::pg_lsn)::text as lsn`);
      this.currentLsn = BigInt(rows[0].lsn);
      this.retainedBytes = state ? Number(state.retainedBytes) : null;
      if (Date.now() - this.#weighedAt < weighEveryMs) return;
      this.#weighedAt = Date.now();
      const weighed = await client.query('select pg_database_size(current_database()) as bytes');
      this.databaseBytes = Number(weighed.rows[0].bytes);
    } catch {
      // The reader says what is wrong with the source; here the next turn connects anew.
      await this.#client?.end().catch(() => {});
      this.#client = null;
    }
  }

  async #connect(url: string): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: url, application_name: 'demo view' });
    client.on('error', () => {});
    await client.connect();
    this.#client = client;
    return client;
  }
}
