/** Kind `clickhouse`: a database of its own for each case, on one engine. Rows are read from the views, as JSON. */
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { postgresFloat } from '../../connectors/object-log/postgres-float.ts';
import { clickhouseSink } from '../../connectors/sinks/clickhouse/index.ts';
import { quoteName, quoteText, viewName } from '../../connectors/sinks/clickhouse/names.ts';
import type { ColumnShape, TableShape } from '../../src/connector/shape.ts';
import type { Cell, OptionValues, Row } from '../../src/connector/sink.ts';
import { type FrontAnswer, type HttpFront, startHttpFront } from './http-front.ts';
import { optionValues } from './option-values.ts';
import type { Place, Subject, SubjectServer } from './subject.ts';

export const clickhouseSubject: Subject = {
  kind: clickhouseSink,
  mode: 'merge',
  refuses: {},
  failpoints: [
    'clickhouse-sink-begun',
    'clickhouse-sink-staged',
    'clickhouse-sink-before-commit',
    'clickhouse-sink-committed',
  ],
  // Whatever no type of its own holds is there as text.
  refusedRow: null,
  async start(folder) {
    const stack = await startStack({ directory: `${folder}/stack`, parts: ['clickhouse'] });
    return new Server(stack, await startHttpFront(stack.environment.TIDEMARK_CLICKHOUSE_URL!));
  },
};

/** The server's own words for it. */
function exception(code: number, name: string, message: string): FrontAnswer {
  return {
    status: 500,
    headers: { 'X-ClickHouse-Exception-Code': String(code), 'content-type': 'text/plain; charset=UTF-8' },
    body: `Code: ${code}. DB::Exception: ${message}. (${name}) (version 26.9.1.1)\n`,
  };
}

const tooMany = exception(
  202,
  'TOO_MANY_SIMULTANEOUS_QUERIES',
  'Too many simultaneous queries. Maximum: 100',
);
const noRoom = exception(243, 'NOT_ENOUGH_SPACE', 'Cannot reserve 1.00 MiB, not enough space');

class Server implements SubjectServer {
  readonly #stack: Stack;
  /** What the sink goes through. */
  readonly #front: HttpFront;
  #places = 0;

  constructor(stack: Stack, front: HttpFront) {
    this.#stack = stack;
    this.#front = front;
  }

  async place(): Promise<Place> {
    this.#places += 1;
    const database = `case ${this.#places}`;
    const { environment } = this.#stack;
    const options = (password: string): OptionValues =>
      optionValues(clickhouseSink, {
        'clickhouse.url': this.#front.endpoint,
        'clickhouse.database': database,
        'clickhouse.user': environment.TIDEMARK_CLICKHOUSE_USER!,
        'clickhouse.password': password,
      });
    const password = environment.TIDEMARK_CLICKHOUSE_PASSWORD!;
    return {
      options: options(password),
      refusedOptions: options(`wrong-${password}`),
      rows: (shape) => this.#rows(database, shape),
      whileThrottled: (work) => this.#front.whileAnswering(tooMany, work),
      whileFull: (work) => this.#front.whileAnswering(noRoom, work),
    };
  }

  async #rows(database: string, shape: TableShape): Promise<Row[]> {
    const view = viewName(shape);
    const there = await this.#query(
      `SELECT count() FROM system.columns WHERE database = ${quoteText(database)} AND table = ${quoteText(view)}`,
    );
    if (Number((there[0] as unknown[])[0]) === 0) return [];
    const beside = await this.#query(
      `SELECT count() FROM system.columns WHERE database = ${quoteText(database)} AND table = ${quoteText(view)} AND name = '_exact' AND type LIKE 'Map%'`,
    );
    const columns = shape.columns.map((column) =>
      column.type === 'bytea' && column.form !== 'text'
        ? `hex(${quoteName(column.name)})`
        : quoteName(column.name),
    );
    const exact = Number((beside[0] as unknown[])[0]) > 0 ? '_exact' : 'map()';
    const rows = await this.#query(
      `SELECT ${[...columns, exact].join(', ')} FROM ${quoteName(database)}.${quoteName(view)}`,
    );
    return rows.map((fields) => {
      const texts = fields.at(-1) as Record<string, Cell>;
      return shape.columns.map((column, i) =>
        Object.hasOwn(texts, column.name) ? texts[column.name]! : cellOf(column, fields[i]),
      );
    });
  }

  async #query(sql: string): Promise<unknown[][]> {
    const { environment } = this.#stack;
    const settings = new URLSearchParams({
      output_format_json_quote_64bit_integers: '1',
      output_format_json_quote_decimals: '1',
      output_format_json_quote_denormals: '1',
      output_format_decimal_trailing_zeros: '1',
      max_query_size: '10000000',
    });
    const response = await fetch(`${environment.TIDEMARK_CLICKHOUSE_URL}/?${settings}`, {
      method: 'POST',
      headers: {
        'X-ClickHouse-User': environment.TIDEMARK_CLICKHOUSE_USER!,
        'X-ClickHouse-Key': environment.TIDEMARK_CLICKHOUSE_PASSWORD!,
      },
      body: `${sql} FORMAT JSONCompactEachRow`,
    });
    const text = await response.text();
    if (!response.ok) throw new Error(text);
    return text
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as unknown[]);
  }

  async whileDown(work: () => Promise<void>): Promise<void> {
    await this.#stack.stopPart('clickhouse', { signal: 'SIGKILL' });
    try {
      await work();
    } finally {
      await this.#stack.startPart('clickhouse');
    }
  }

  stop(): Promise<void> {
    return this.#stack.stop();
  }
}

/** Postgres' spelling of a value as JSON has it. */
function cellOf(column: ColumnShape, value: unknown): Cell {
  if (value === null) return null;
  if (Array.isArray(value)) {
    return `{${value.map((item) => (item === null ? 'NULL' : itemText(item))).join(',')}}`;
  }
  const type = column.form === 'text' ? 'text' : (column.base ?? column.type);
  if (typeof value === 'boolean') return value ? 't' : 'f';
  if (type === 'real' || type === 'double precision') {
    const words: Record<string, number> = {
      nan: Number.NaN,
      inf: Number.POSITIVE_INFINITY,
      '-inf': Number.NEGATIVE_INFINITY,
    };
    const number = words[String(value)] ?? Number(value);
    return type === 'real' ? postgresFloat(Math.fround(number), 'real') : postgresFloat(number, 'double');
  }
  const text = String(value);
  if (type === 'bytea') return `\\x${text.toLowerCase()}`;
  if (/^timestamp.*time zone$/.test(type)) {
    const plain = text.includes('.') ? text.replace(/\.?0+$/, '') : text;
    // Columns that keep Postgres' text have its zone already.
    return / with time zone$/.test(type) && !/[+-]\d\d(:\d\d)?$/.test(text) ? `${plain}+00` : plain;
  }
  return text;
}

function itemText(item: unknown): string {
  if (typeof item === 'boolean') return item ? 't' : 'f';
  const text = String(item);
  return typeof item === 'string' && /^$|["\\{},\s]|^null$/i.test(text)
    ? `"${text.replace(/["\\]/g, '\\$&')}"`
    : text;
}
