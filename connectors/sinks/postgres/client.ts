/** One connection to the destination. Cells are text both ways; many statements go out in one round trip. */
import pg from 'pg';
import { CopyIn } from './copy-in.ts';
import { endsSession, SessionError } from './failures.ts';
import type { PostgresSettings } from './options.ts';
import { quoteName } from './quote.ts';

/** One statement's result. */
export interface StatementResult {
  /** Command tag without its counts: INSERT, COMMIT, … */
  command: string;
  /** Rows the statement touched or gave. */
  count: number;
  rows: (string | null)[][];
}

/** Output functions' text, never a parsed value: Dates lose microseconds, numbers lose digits. */
const textTypes = { getTypeParser: () => (value: string) => value } as unknown as pg.CustomTypesConfig;

const connectTimeoutMs = 10_000;
const keepAliveAfterMs = 15_000;

export class Session {
  readonly #client: pg.Client;
  readonly #settings: PostgresSettings;
  #completed = 0;
  #broken = false;

  private constructor(client: pg.Client, settings: PostgresSettings) {
    this.#client = client;
    this.#settings = settings;
    client.on('error', () => {
      this.#broken = true;
    });
    client.on('end', () => {
      this.#broken = true;
    });
  }

  /** @throws SessionError */
  static async open(settings: PostgresSettings, destination: string): Promise<Session> {
    const client = new pg.Client({
      host: settings.host,
      port: settings.port,
      database: settings.database,
      user: settings.user,
      // A function keeps pg from reading PGPASSWORD or a password file that the instance file does not name.
      password: () => settings.password ?? '',
      ssl: settings.tls,
      application_name: `tidemark/${destination}`.slice(0, 63),
      connectionTimeoutMillis: connectTimeoutMs,
      keepAlive: true,
      keepAliveInitialDelayMillis: keepAliveAfterMs,
    });
    const session = new Session(client, settings);
    try {
      await client.connect();
    } catch (error) {
      session.destroy();
      throw new SessionError(error, 0);
    }
    client.connection.on('commandComplete', () => {
      session.#completed++;
    });
    // A worker that vanished with its host must not hold the progress row for hours. Best effort: not every
    // server's system has these, and a pooler may refuse them.
    await client
      .query('SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10')
      .catch(() => undefined);
    return session;
  }

  /** True once the connection is lost or in an unknown state; open another. */
  get broken(): boolean {
    return this.#broken;
  }

  /**
   * Runs statements in one round trip (simple protocol) and gives their results in order.
   * @throws SessionError with the number of the statement that failed
   */
  async run(...statements: string[]): Promise<StatementResult[]> {
    this.#completed = 0;
    try {
      const query = { text: statements.join(';\n'), rowMode: 'array' as const, types: textTypes };
      const answer: unknown = await this.#client.query(query);
      const results = (Array.isArray(answer) ? answer : [answer]) as pg.QueryArrayResult<(string | null)[]>[];
      return results.map(({ command, rowCount, rows }) => ({ command, count: rowCount ?? 0, rows }));
    } catch (error) {
      this.#broken ||= endsSession(error);
      throw new SessionError(error, this.#completed);
    }
  }

  /**
   * Statements of which one is a COPY … FROM STDIN with `data` as its whole input, in one round trip.
   * @throws SessionError
   */
  async copyIn(statements: readonly string[], data: Uint8Array): Promise<void> {
    try {
      await this.#client.query(new CopyIn(statements.join(';\n'), data)).done;
    } catch (error) {
      this.#broken ||= endsSession(error);
      throw new SessionError(error, 0);
    }
  }

  /** The raw client, for a COPY … TO STDOUT. */
  get client(): pg.Client {
    return this.#client;
  }

  /**
   * Statements that start a transaction in which every type reads and prints as in the source's stream. They are
   * local to it, so that nothing depends on session state (a pooler may hand out another session each time).
   */
  begin(options: { mode?: string; searchPath?: string[]; statementTimeoutMs?: number } = {}): string[] {
    const { mode = '', searchPath = [], statementTimeoutMs = this.#settings.statementTimeoutMs } = options;
    return [
      `BEGIN ${mode}`,
      "SET LOCAL DateStyle = 'ISO, YMD'",
      "SET LOCAL IntervalStyle = 'postgres'",
      "SET LOCAL TimeZone = 'UTC'",
      'SET LOCAL extra_float_digits = 1',
      "SET LOCAL bytea_output = 'hex'",
      "SET LOCAL lc_monetary = 'C'",
      "SET LOCAL xmloption = 'content'",
      'SET LOCAL standard_conforming_strings = on',
      // Type names travel qualified, so the path adds nothing but the operators of key types from extensions.
      `SET LOCAL search_path = ${['pg_catalog', ...searchPath.map(quoteName)].join(', ')}`,
      `SET LOCAL statement_timeout = ${statementTimeoutMs}`,
      `SET LOCAL lock_timeout = ${this.#settings.lockTimeoutMs}`,
      `SET LOCAL idle_in_transaction_session_timeout = '10min'`,
      // Compiling a merge of a wide table takes seconds and never pays.
      'SET LOCAL jit = off',
      // A policy would hide rows from the merge; an error is better.
      'SET LOCAL row_security = off',
    ];
  }

  /** Ends the transaction, or the connection where that fails. */
  async rollback(): Promise<void> {
    if (!this.#broken) await this.run('ROLLBACK').catch(() => undefined);
    if (this.#broken) this.destroy();
  }

  async close(): Promise<void> {
    if (this.#broken) return this.destroy();
    this.#broken = true;
    await this.#client.end().catch(() => undefined);
  }

  /** Drops the connection without a word. */
  destroy(): void {
    this.#broken = true;
    this.#client.connection?.stream?.destroy();
  }
}

/** `synchronous_commit` as it is, unless it would acknowledge before the disk has it. */
export const durableCommit = `SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'`;
