/** A namespace of a stack's catalog for one test: Windows into it, its rows as others read them, and its files. */
import { randomUUID } from 'node:crypto';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Stack } from '../../compose/local-stack.ts';
import { icebergSink } from '../../connectors/sinks/iceberg/index.ts';
import { Lake, type OpenTable } from '../../connectors/sinks/iceberg/lake.ts';
import { identifierOf } from '../../connectors/sinks/iceberg/names.ts';
import { resolveSettings } from '../../connectors/sinks/iceberg/options.ts';
import type { IcebergSink } from '../../connectors/sinks/iceberg/sink.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import {
  type OptionValues,
  type Row,
  type SinkContext,
  type UpkeepRequest,
  upkeepSteps,
} from '../../src/connector/sink.ts';
import { optionValues } from '../conformance/option-values.ts';
import { stackCatalog } from './catalogs.ts';
import type { ReaderCatalog, ReaderName } from './reader.ts';
import { icebergReader } from './readers.ts';

export * from './sink-windows.ts';

export function upkeep(more: Partial<UpkeepRequest> = {}): UpkeepRequest {
  return {
    steps: upkeepSteps,
    tables: null,
    expireAfterMs: null,
    keepLast: null,
    orphanAgeMs: 24 * 60 * 60 * 1000,
    deleteRatio: 0.3,
    dryRun: false,
    signal: new AbortController().signal,
    onProgress() {},
    ...more,
  };
}

export class Place {
  readonly options: OptionValues;
  readonly lines: string[] = [];
  readonly uri: string;
  readonly catalog: ReaderCatalog;
  readonly #folder: string;

  /** @param folder for scratch directories */
  constructor(stack: Stack, folder: string, namespace: string, more: OptionValues = {}) {
    this.#folder = folder;
    this.uri = stack.environment.TIDEMARK_ICEBERG_URL!;
    this.catalog =
      stack.environment.TIDEMARK_S3_ENDPOINT === undefined
        ? { uri: this.uri }
        : stackCatalog(stack.environment);
    this.options = optionValues(icebergSink, {
      'iceberg.catalog.uri': this.uri,
      'iceberg.namespace': namespace,
      ...more,
    });
  }

  identifier(shape: TableShape) {
    return identifierOf(String(this.options['iceberg.namespace']), shape);
  }

  /** @param more options, for this one alone */
  async open<Kind = IcebergSink>(
    failpoint: (name: string) => Promise<void> = async () => undefined,
    more: OptionValues = {},
  ): Promise<Kind> {
    const scratchDirectory = join(this.#folder, randomUUID());
    await mkdir(scratchDirectory, { recursive: true });
    const context: SinkContext = {
      sourceId: 'source',
      destination: 'lake',
      scratchDirectory,
      log: (_level, message) => this.lines.push(message),
      failpoint,
    };
    return (await icebergSink.open(context, { ...this.options, ...more })) as Kind;
  }

  /** Values of the shape's columns, in some order; of a snapshot where one is named. */
  async rows(shape: TableShape, reader: ReaderName = 'pyiceberg', snapshotId?: string): Promise<Row[]> {
    const { columns, rows } = await icebergReader(reader).readTable(
      this.catalog,
      this.identifier(shape),
      snapshotId,
    );
    const places = shape.columns.map(({ name }) => columns.indexOf(name));
    return sorted(rows.map((row) => places.map((place) => row[place]!)));
  }

  async inLake<T>(shape: TableShape, work: (lake: Lake, table: OpenTable) => Promise<T>): Promise<T> {
    const lake = await Lake.open(resolveSettings(this.options));
    try {
      return await work(lake, (await lake.load(this.identifier(shape)))!);
    } finally {
      await lake.close();
    }
  }

  /** Data files and delete files that the table names now. */
  files(shape: TableShape): Promise<{ data: number; deletes: number }> {
    return this.inLake(shape, async (lake, table) => {
      const live = await lake.live(table);
      return { data: [...live.dataFiles()].length, deletes: [...live.deleteFiles()].length };
    });
  }

  /** Names of all files below the table's folder that end like this. */
  async stored(shape: TableShape, ending: string): Promise<string[]> {
    const location = await this.inLake(shape, async (_lake, { metadata }) => metadata.location);
    const all = await readdir(fileURLToPath(location), { recursive: true });
    return all.filter((name) => name.endsWith(ending)).sort();
  }
}

export function sorted(rows: Row[]): Row[] {
  return rows
    .map((row) => JSON.stringify(row))
    .sort()
    .map((row) => JSON.parse(row) as Row);
}
