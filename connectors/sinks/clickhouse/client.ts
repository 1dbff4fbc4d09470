/** The server's HTTP interface. Rows travel as TabSeparated text both ways: Postgres' own text is nearly that already. */
import { Agent } from 'node:https';
import { Readable } from 'node:stream';
import { type ClickHouseClient, ClickHouseLogLevel, createClient } from '@clickhouse/client';
import { asFailure, serverCode } from './failures.ts';
import { quoteName } from './names.ts';
import type { ClickHouseSettings } from './options.ts';
import { type Field, Lines } from './tab-separated.ts';

/** What a user's profile may have otherwise, and the sink relies on. */
const fixed = {
  // Definitions of wide tables are long.
  max_query_size: '67108864',
  // An acknowledged insert is in the table, and by the time it is asked for.
  async_insert: 0,
  insert_deduplicate: 1,
  mutations_sync: '2',
  alter_sync: '2',
  select_sequential_consistency: '1',
  // A NULL where there can be none is a mistake of ours.
  input_format_null_as_default: 0,
  input_format_tsv_empty_as_default: 0,
  date_time_input_format: 'basic',
  output_format_decimal_trailing_zeros: 1,
  join_use_nulls: 0,
  do_not_merge_across_partitions_select_final: 0,
} as const;

/** Tries of an insert whose outcome the connection left open; its token keeps it from being written twice. */
const insertTries = 3;

export class Server {
  readonly database: string;
  readonly #client: ClickHouseClient;
  readonly #destination: string;

  constructor(settings: ClickHouseSettings, destination: string) {
    this.database = settings.database;
    this.#destination = destination;
    const { tls } = settings;
    this.#client = createClient({
      url: settings.url,
      username: settings.user,
      password: settings.password,
      application: 'tidemark',
      request_timeout: settings.requestTimeoutMs,
      max_open_connections: 16,
      compression: { request: false, response: false },
      log: { level: ClickHouseLogLevel.OFF },
      clickhouse_settings: fixed,
      ...(tls === null
        ? {}
        : {
            http_agent: new Agent({
              keepAlive: true,
              rejectUnauthorized: tls.verify,
              ...(tls.verify ? {} : { checkServerIdentity: () => undefined }),
              ...(tls.ca === null ? {} : { ca: tls.ca }),
              ...(tls.cert === null ? {} : { cert: tls.cert }),
              ...(tls.key === null ? {} : { key: tls.key }),
            }),
          }),
    });
  }

  /** `database.table`, quoted. */
  table(name: string): string {
    return `${quoteName(this.database)}.${quoteName(name)}`;
  }

  /** @param about the table, for the error. @throws TidemarkError */
  async run(sql: string, about: string): Promise<void> {
    try {
      await this.#client.command({ query: sql });
    } catch (error) {
      throw this.#failure(error, about);
    }
  }

  /** As `run`; false where a table that the statement needs is not there. */
  async runIfThere(sql: string, about: string): Promise<boolean> {
    try {
      await this.#client.command({ query: sql });
      return true;
    } catch (error) {
      if (isMissingTable(error)) return false;
      throw this.#failure(error, about);
    }
  }

  /** A result of few rows. @throws TidemarkError */
  async select(sql: string, about: string): Promise<Field[][]> {
    const rows: Field[][] = [];
    for await (const batch of this.stream(sql, about)) rows.push(...batch);
    return rows;
  }

  /** As `select`; null where a table is not there. */
  async selectIfThere(sql: string, about: string): Promise<Field[][] | null> {
    const rows: Field[][] = [];
    try {
      for await (const batch of this.#stream(sql)) rows.push(...batch);
      return rows;
    } catch (error) {
      if (isMissingTable(error)) return null;
      throw this.#failure(error, about);
    }
  }

  /** Rows in batches of about 4 MiB, as they come. @throws TidemarkError */
  async *stream(sql: string, about: string): AsyncGenerator<Field[][]> {
    try {
      yield* this.#stream(sql);
    } catch (error) {
      throw this.#failure(error, about);
    }
  }

  async *#stream(sql: string): AsyncGenerator<Field[][]> {
    const answer = await this.#client.exec({ query: `${sql}\nFORMAT TabSeparated` });
    const body = answer.stream as Readable;
    try {
      const lines = new Lines();
      for await (const chunk of body) yield* lines.take(chunk as Buffer);
      const last = lines.end();
      if (last.length > 0) yield last;
    } finally {
      body.destroy();
    }
  }

  /** Writes lines of `columns`. The same token again writes nothing. @throws TidemarkError */
  async insert(
    table: string,
    columns: readonly string[],
    lines: string,
    token: string,
    about: string,
  ): Promise<number> {
    const body = Buffer.from(lines);
    for (let tries = 1; ; tries++) {
      try {
        await this.#client.insert({
          table: this.table(table),
          columns: columns.map(quoteName) as [string, ...string[]],
          values: Readable.from([body], { objectMode: false }),
          format: 'TabSeparated',
          clickhouse_settings: { insert_deduplication_token: token },
        });
        return body.length;
      } catch (error) {
        if (serverCode(error) !== null || tries === insertTries) throw this.#failure(error, about);
      }
    }
  }

  async close(): Promise<void> {
    await this.#client.close();
  }

  #failure(error: unknown, about: string): unknown {
    return asFailure(error, `${this.#destination}: ${about}`);
  }
}

function isMissingTable(error: unknown): boolean {
  const code = serverCode(error);
  return code === 60 || code === 81;
}
