/** Kind `iceberg`, both modes: namespaces of their own for each case, in Iceberg's own catalog server over a directory. */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import type { TableIdentifier } from '../../connectors/sinks/iceberg/catalog/catalog.ts';
import { parseJson } from '../../connectors/sinks/iceberg/catalog/exact-json.ts';
import { icebergSink } from '../../connectors/sinks/iceberg/index.ts';
import { houseNames } from '../../connectors/sinks/iceberg/merge/layout.ts';
import { fieldNames } from '../../connectors/sinks/iceberg/merge/next-layout.ts';
import { identifierOf } from '../../connectors/sinks/iceberg/names.ts';
import type { NestedField } from '../../connectors/sinks/iceberg/spec/schema.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import type { OptionValues, Row } from '../../src/connector/sink.ts';
import type { ReaderCatalog, ReaderName, TableRows } from '../iceberg/reader.ts';
import { icebergReader } from '../iceberg/readers.ts';
import { type FrontAnswer, type HttpFront, startHttpFront } from './http-front.ts';
import { latestRows, seenEvents, type TableChanges } from './iceberg-changes.ts';
import { optionValues } from './option-values.ts';
import type { Field } from './parquet-reader.ts';
import type { Place, Subject, SubjectServer } from './subject.ts';

/** Every case's tables are read by these, and must look the same to all of them. */
const readers: readonly ReaderName[] = (process.env.TIDEMARK_ICEBERG_READERS?.split(',') as
  | ReaderName[]
  | undefined) ?? ['pyiceberg', 'duckdb', 'spark'];

/** Of append mode: a place's tables are read by one of them. */
const quickReaders: readonly ReaderName[] = ['pyiceberg', 'duckdb'];

const both = {
  kind: icebergSink,
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
} satisfies Partial<Subject>;

export const icebergSubject: Subject = {
  ...both,
  mode: 'merge',
  refuses: {},
  schedules: 10,
  start: (folder) => start(folder, 'merge'),
};

export const icebergAppendSubject: Subject = {
  ...both,
  name: 'iceberg, append',
  mode: 'append',
  // A table has one key all along: its Changes are found by it.
  refuses: { 'key-definition-change': 'TM405' },
  schedules: 4,
  manyRows: 50_000,
  start: (folder) => start(folder, 'append'),
};

async function start(folder: string, mode: 'merge' | 'append'): Promise<Server> {
  const stack = await startStack({ directory: `${folder}/stack`, parts: ['iceberg'] });
  return new Server(stack, await startHttpFront(stack.environment.TIDEMARK_ICEBERG_URL!), mode);
}

const tooMany: FrontAnswer = {
  status: 429,
  headers: { 'content-type': 'application/json', 'retry-after': '0' },
  body: JSON.stringify({ error: { message: 'later', type: 'TooManyRequestsException', code: 429 } }),
};

class Server implements SubjectServer {
  readonly #stack: Stack;
  /** What the sink goes through. */
  readonly #front: HttpFront;
  readonly #mode: 'merge' | 'append';
  /** By location: the rows of a snapshot are looked at for what they are and for what happened. */
  readonly #seen = new Map<string, { snapshot: string; changes: TableChanges }>();
  #places = 0;

  constructor(stack: Stack, front: HttpFront, mode: 'merge' | 'append') {
    this.#stack = stack;
    this.#front = front;
    this.#mode = mode;
  }

  get #catalog(): ReaderCatalog {
    return { uri: this.#stack.environment.TIDEMARK_ICEBERG_URL! };
  }

  async place(): Promise<Place> {
    this.#places += 1;
    const namespace = `case_${this.#places}_{schema}`;
    const reader = quickReaders[this.#places % quickReaders.length]!;
    const options: OptionValues = optionValues(icebergSink, {
      'iceberg.catalog.uri': this.#front.endpoint,
      'iceberg.namespace': namespace,
      'iceberg.mode': this.#mode,
      'iceberg.catalog.timeout': 10_000,
    });
    const merged = { rows: (shape: TableShape) => this.#rows(namespace, shape) };
    const changes = (shape: TableShape) => this.#changes(namespace, shape, reader);
    const appended = {
      rows: async (shape: TableShape) => latestRows(await changes(shape), shape),
      events: async (shape: TableShape) => seenEvents(await changes(shape), shape),
    };
    const read = this.#mode === 'merge' ? merged : appended;
    return {
      options,
      ...read,
      whileThrottled: (work) => this.#front.whileAnswering(tooMany, work),
    };
  }

  async #rows(namespace: string, shape: TableShape): Promise<Row[]> {
    const identifier = identifierOf(namespace, shape);
    const metadata = await this.#metadata(identifier);
    if (metadata === null) return [];
    const ids = new Map(fieldsNow(metadata).map(({ name, id }) => [name, String(id)]));
    const names = fieldNames(shape);
    const rowsOf = ({ columns, rows }: TableRows) => {
      const exact = columns.indexOf(houseNames.exact);
      return rows.map((row) => {
        const texts = JSON.parse(row[exact] ?? '{}') as Record<string, string>;
        return names.map((column) => texts[ids.get(column)!] ?? row[columns.indexOf(column)] ?? null);
      });
    };
    const seen: Row[][] = [];
    for (const name of readers)
      seen.push(rowsOf(await icebergReader(name).readTable(this.#catalog, identifier)));
    const [first, ...others] = seen.map(sorted);
    for (const [i, other] of others.entries()) {
      if (JSON.stringify(other) !== JSON.stringify(first))
        throw new Error(`${readers[i + 1]} and ${readers[0]} see different rows of ${identifier.name}`);
    }
    return seen[0]!;
  }

  /** Null where no Window came into such a table. */
  async #changes(namespace: string, shape: TableShape, reader: ReaderName): Promise<TableChanges | null> {
    const identifier = identifierOf(namespace, shape);
    const metadata = await this.#metadata(identifier);
    const layout = metadata?.properties['tidemark.changes'];
    if (!metadata || layout === undefined) return null;
    const known = this.#seen.get(metadata.location);
    const snapshot = String(metadata['current-snapshot-id']);
    if (known?.snapshot === snapshot) return known.changes;
    const fields = fieldsNow(metadata);
    const names = fields.map(({ name }) => name);
    const seen = await icebergReader(reader).readTable(this.#catalog, identifier);
    const rows = seen.rows.map((row) => names.map((name) => row[seen.columns.indexOf(name)] ?? null));
    const script = await readFile(fileURLToPath(`${metadata.location}/tidemark/latest.sql`), 'utf8');
    const changes = { fields, rows, script, columns: (JSON.parse(layout) as { fields: Field[] }).fields };
    this.#seen.set(metadata.location, { snapshot, changes });
    return changes;
  }

  /** Null where there is no such table. */
  async #metadata({ namespace, name }: TableIdentifier): Promise<Metadata | null> {
    const part = namespace.map(encodeURIComponent).join('%1F');
    const url = `${this.#catalog.uri}/v1/namespaces/${part}/tables/${encodeURIComponent(name)}`;
    const response = await fetch(url);
    if (response.status === 404) return null;
    return (parseJson(await response.text()) as unknown as { metadata: Metadata }).metadata;
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
  schemas: { 'schema-id': number; fields: NestedField[] }[];
  'current-schema-id': number;
  'current-snapshot-id'?: unknown;
  location: string;
  properties: Record<string, string>;
}

function fieldsNow({ schemas, 'current-schema-id': current }: Metadata): NestedField[] {
  return schemas.find((each) => each['schema-id'] === current)!.fields;
}

function sorted(rows: Row[]): string[] {
  return rows.map((row) => JSON.stringify(row)).sort();
}
