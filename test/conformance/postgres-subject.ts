/** Kind `postgres`: a database of its own for each case, on one server, and a role that may do what the README says. */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { postgresSink } from '../../connectors/sinks/postgres/index.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import type { OptionValues, Row } from '../../src/connector/sink.ts';
import { textRows } from '../fixtures/postgres.ts';
import { shapeOf } from './example-tables.ts';
import { optionValues } from './option-values.ts';
import type { Place, Subject, SubjectServer } from './subject.ts';

const password = `conformance-${randomBytes(8).toString('hex')}`;

const refusedNote = 'a note that nobody wants';

/** As the source prints: the replica's own output functions, whatever the server's settings. */
const printing = `set datestyle = 'ISO'; set timezone = 'UTC'; set intervalstyle = 'postgres'; set bytea_output = 'hex';
  set extra_float_digits = 1; set lc_monetary = 'C'; set search_path = ''`;

export const postgresSubject: Subject = {
  kind: postgresSink,
  mode: 'merge',
  refuses: {},
  failpoints: [
    'postgres-sink-locked',
    'postgres-sink-staged',
    'postgres-sink-before-commit',
    'postgres-sink-committed',
  ],
  // Tables that the sink makes take whatever the source has; this one was there before, see place().
  refusedRow: { shape: shapeOf('picky', ['id integer key', 'note text']), values: ['1', refusedNote] },
  async start(folder) {
    return Server.start(await startStack({ directory: `${folder}/stack`, parts: ['postgres'] }));
  },
};

class Server implements SubjectServer {
  readonly #stack: Stack;
  readonly #url: URL;
  #places = 0;

  private constructor(stack: Stack) {
    this.#stack = stack;
    this.#url = new URL(stack.environment.TIDEMARK_SOURCE_URL!);
  }

  /** Cases get copies of a database that has the extensions of the types. */
  static async start(stack: Stack): Promise<Server> {
    const server = new Server(stack);
    await server.#asOwner('tidemark', 'create database template_of_cases');
    await server.#asOwner(
      'template_of_cases',
      'create extension citext; create extension hstore; create extension ltree',
    );
    return server;
  }

  async place(): Promise<Place> {
    this.#places += 1;
    const name = `case_${this.#places}`;
    await this.#asOwner('tidemark', `create role ${name} login password '${password}'`);
    await this.#asOwner('tidemark', `create database ${name} owner ${name} template template_of_cases`);
    await this.#asOwner(
      name,
      `set role ${name}; create schema app;
       create table app.picky (id integer primary key, note text check (note <> '${refusedNote}'))`,
    );
    const options = (secret: string): OptionValues => {
      const url = new URL(this.#url);
      url.pathname = `/${name}`;
      url.username = name;
      url.password = secret;
      return optionValues(postgresSink, { 'connection.url': url.href });
    };
    return {
      options: options(password),
      refusedOptions: options(`wrong-${password}`),
      rows: (shape) => this.#rows(name, shape),
      whileThrottled: (work) => this.#whileThrottled(name, work),
      whileFull: (work) => this.#whileFull(name, work),
    };
  }

  async #rows(database: string, shape: TableShape): Promise<Row[]> {
    return this.#connected(database, async (client) => {
      await client.query(printing);
      const table = `${pg.escapeIdentifier(shape.schema)}.${pg.escapeIdentifier(shape.name)}`;
      const { rows } = await client.query('select to_regclass($1) is not null as there', [table]);
      if (!rows[0].there) return [];
      const columns = shape.columns.map(({ name }) => pg.escapeIdentifier(name));
      return textRows(client, `select ${columns.join(', ')} from ${table}`);
    });
  }

  /** Its role may not connect, and its sessions are ended: SQLSTATE 53300. */
  async #whileThrottled(name: string, work: () => Promise<void>): Promise<void> {
    await this.#asOwner('tidemark', `alter role ${name} connection limit 0`);
    await this.#asOwner(
      'tidemark',
      `select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = '${name}'`,
    );
    try {
      await work();
    } finally {
      await this.#asOwner('tidemark', `alter role ${name} connection limit -1`);
    }
  }

  /** A trigger raises what the server raises when a write finds no room: SQLSTATE 53100. */
  async #whileFull(name: string, work: () => Promise<void>): Promise<void> {
    await this.#asOwner(
      name,
      `create function public.no_room() returns trigger language plpgsql as
         $$ begin raise exception 'could not extend file' using errcode = 'disk_full'; end $$;
       create trigger no_room before insert or update on _tidemark.progress execute function public.no_room()`,
    );
    try {
      await work();
    } finally {
      await this.#asOwner(name, 'drop function public.no_room cascade');
    }
  }

  async whileDown(work: () => Promise<void>): Promise<void> {
    await this.#stack.stopPart('postgres', { signal: 'SIGKILL' });
    try {
      await work();
    } finally {
      await this.#stack.startPart('postgres');
    }
  }

  stop(): Promise<void> {
    return this.#stack.stop();
  }

  #asOwner(database: string, sql: string): Promise<unknown> {
    return this.#connected(database, (client) => client.query(sql));
  }

  async #connected<T>(database: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
    const url = new URL(this.#url);
    url.pathname = `/${database}`;
    const client = new pg.Client({ connectionString: url.href });
    client.on('error', () => undefined);
    await client.connect();
    try {
      return await work(client);
    } finally {
      await client.end();
    }
  }
}
