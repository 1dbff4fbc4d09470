/** Kind `iceberg`: namespaces of their own for each case, in Iceberg's own catalog server over a directory. */
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { parseJson } from '../../connectors/sinks/iceberg/catalog/exact-json.ts';
import { icebergSink } from '../../connectors/sinks/iceberg/index.ts';
import { houseNames } from '../../connectors/sinks/iceberg/merge/layout.ts';
import { fieldNames } from '../../connectors/sinks/iceberg/merge/next-layout.ts';
import { identifierOf } from '../../connectors/sinks/iceberg/names.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import type { OptionValues, Row } from '../../src/connector/sink.ts';
import type { ReaderCatalog, ReaderName } from '../iceberg/reader.ts';
import { icebergReader } from '../iceberg/readers.ts';
import { type FrontAnswer, type HttpFront, startHttpFront } from './http-front.ts';
import { optionValues } from './option-values.ts';
import type { Place, Subject, SubjectServer } from './subject.ts';

/** Every case's tables are read by these, and must look the same to all of them. */
const readers: readonly ReaderName[] = (process.env.TIDEMARK_ICEBERG_READERS?.split(',') as
  | ReaderName[]
  | undefined) ?? ['pyiceberg', 'duckdb', 'spark'];

export const icebergSubject: Subject = {
  kind: icebergSink,
  mode: 'merge',
  refuses: {},
  unproven: {
    'refused credentials': 'refused credentials are not tried with this kind',
    'no room': 'A warehouse without room is not tried',
  },
  failpoints: [
    'iceberg-sink-begun',
    'iceberg-sink-staged',
    'iceberg-sink-before-commit',
    'iceberg-sink-tables-committed',
    'iceberg-sink-committed',
  ],
  // Whatever no type of its own holds is there as text.
  refusedRow: null,
  schedules: 10,
  async start(folder) {
    const stack = await startStack({ directory: `${folder}/stack`, parts: ['iceberg'] });
    return new Server(stack, await startHttpFront(stack.environment.TIDEMARK_ICEBERG_URL!));
  },
};

const tooMany: FrontAnswer = {
  status: 429,
  headers: { 'content-type': 'application/json', 'retry-after': '0' },
  body: JSON.stringify({ error: { message: 'later', type: 'TooManyRequestsException', code: 429 } }),
};

class Server implements SubjectServer {
  readonly #stack: Stack;
  /** What the sink goes through. */
  readonly #front: HttpFront;
  #places = 0;

  constructor(stack: Stack, front: HttpFront) {
    this.#stack = stack;
    this.#front = front;
  }

  get #catalog(): ReaderCatalog {
    return { uri: this.#stack.environment.TIDEMARK_ICEBERG_URL! };
  }

  async place(): Promise<Place> {
    this.#places += 1;
    const namespace = `case_${this.#places}_{schema}`;
    const options: OptionValues = optionValues(icebergSink, {
      'iceberg.catalog.uri': this.#front.endpoint,
      'iceberg.namespace': namespace,
      'iceberg.catalog.timeout': 10_000,
    });
    return {
      options,
      rows: (shape) => this.#rows(namespace, shape),
      whileThrottled: (work) => this.#front.whileAnswering(tooMany, work),
    };
  }

  async #rows(namespace: string, shape: TableShape): Promise<Row[]> {
    const identifier = identifierOf(namespace, shape);
    const ids = await this.#fieldIds(identifier.namespace, identifier.name);
    if (ids === null) return [];
    const names = fieldNames(shape);
    const seen: Row[][] = [];
    for (const name of readers) {
      const { columns, rows } = await icebergReader(name).readTable(this.#catalog, identifier);
      const exact = columns.indexOf(houseNames.exact);
      seen.push(
        rows.map((row) => {
          const texts = JSON.parse(row[exact] ?? '{}') as Record<string, string>;
          return names.map((column) => texts[ids.get(column)!] ?? row[columns.indexOf(column)] ?? null);
        }),
      );
    }
    const [first, ...others] = seen.map(sorted);
    for (const [i, other] of others.entries()) {
      if (JSON.stringify(other) !== JSON.stringify(first))
        throw new Error(`${readers[i + 1]} and ${readers[0]} see different rows of ${identifier.name}`);
    }
    return seen[0]!;
  }

  /** Null where there is no such table, or one that no Window was merged into. */
  async #fieldIds(namespace: readonly string[], table: string): Promise<Map<string, string> | null> {
    const part = namespace.map(encodeURIComponent).join('%1F');
    const url = `${this.#catalog.uri}/v1/namespaces/${part}/tables/${encodeURIComponent(table)}`;
    const response = await fetch(url);
    if (response.status === 404) return null;
    const { metadata } = parseJson(await response.text()) as unknown as { metadata: Metadata };
    const schema = metadata.schemas.find((each) => each['schema-id'] === metadata['current-schema-id'])!;
    return new Map(schema.fields.map(({ name, id }) => [name, String(id)]));
  }

  async whileDown(work: () => Promise<void>): Promise<void> {
    await this.#stack.stopPart('iceberg', { signal: 'SIGKILL' });
    try {
      await work();
    } finally {
      await this.#stack.startPart('iceberg');
    }
  }

  async stop(): Promise<void> {
    this.#front.stop();
    await this.#stack.stop();
  }
}

interface Metadata {
  schemas: { 'schema-id': number; fields: { id: number; name: string }[] }[];
  'current-schema-id': number;
}

function sorted(rows: Row[]): string[] {
  return rows.map((row) => JSON.stringify(row)).sort();
}
