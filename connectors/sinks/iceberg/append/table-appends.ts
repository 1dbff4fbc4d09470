/** A table of a Window in append mode: its Changes as data files on this machine, and the layout that they have. */
import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import type { DuckDBConnection } from '@duckdb/node-api';
import { TidemarkError } from '../../../../src/connector/failure.ts';
import { type TableShape, tableName } from '../../../../src/connector/shape.ts';
import type { AppendTable, SinkContext } from '../../../../src/connector/sink.ts';
import { fitsDuckdb } from '../../../duckdb/fits.ts';
import { type ChangeRow, ChangeRows, type NativeChange } from '../../../object-log/change-row.ts';
import { duckdbFailure } from '../../../object-log/duckdb-failure.ts';
import { assignFields, storedColumns } from '../../../object-log/fields.ts';
import { PartEvents, refuseNewKey } from '../../../object-log/part-events.ts';
import { quoteName } from '../../../object-log/sql-text.ts';
import { StagedRows } from '../../../object-log/staged-rows.ts';
import { storageOf } from '../../../object-log/storage.ts';
import { dataLocation } from '../commit/locations.ts';
import { fromDuckdb } from '../files/duckdb-values.ts';
import { type ColumnSource, fileColumns, selectColumns } from '../files/file-columns.ts';
import { metricsModes } from '../files/metrics-mode.ts';
import { partitionValue } from '../files/partition-sql.ts';
import {
  type DataFileTable,
  type WriteSettings,
  type WrittenFile,
  writeDataFiles,
  writePartition,
} from '../files/write-data-files.ts';
import type { OpenTable } from '../lake.ts';
import { identifierOf } from '../names.ts';
import { memoryKey } from '../options.ts';
import { boundSpec } from '../plan/table-reader.ts';
import { readMark, type WindowHead } from '../progress/properties.ts';
import { checkHistory } from '../progress/table-history.ts';
import type { Surroundings } from '../running-table.ts';
import type { BoundPartitionField, PartitionTuple } from '../spec/partition-spec.ts';
import { currentSchema } from '../spec/table-metadata.ts';
import {
  type ChangeLayout,
  ingestField,
  type NextChangeLayout,
  nextChangeLayout,
  positionField,
} from './change-layout.ts';
import { changeLayoutOf, newChangesTable } from './changes-table.ts';

/** Events that are turned into rows at once. */
const sliceLength = 1024;

/** How a Window's tables write their files. */
export interface Writing {
  connection: DuckDBConnection;
  /** Of a new folder for each call. */
  settings(): WriteSettings;
}

export class TableAppends {
  readonly table: OpenTable;
  /** Whether the table has the Window, and its rows are only counted. */
  readonly held: boolean;
  readonly files: WrittenFile[] = [];
  readonly #window: WindowHead;
  readonly #writing: Writing;
  #next: NextChangeLayout | null = null;
  #layout: ChangeLayout | null;
  /** Rows on their way into a file, all of one shape. */
  #staged: { shape: string; rows: StagedRows } | null = null;

  private constructor(
    table: OpenTable,
    held: boolean,
    layout: ChangeLayout | null,
    window: WindowHead,
    writing: Writing,
  ) {
    this.table = table;
    this.held = held;
    this.#layout = layout;
    this.#window = window;
    this.#writing = writing;
  }

  /** Made where it is missing. @throws TidemarkError TM405 */
  static async open(
    { lake, settings, context }: Pick<Surroundings, 'lake' | 'settings'> & { context: SinkContext },
    window: WindowHead,
    shape: TableShape,
    writing: Writing,
  ): Promise<TableAppends> {
    const identifier = identifierOf(settings.namespace, shape);
    const table = await lake.ensure(identifier, () => newChangesTable(shape, window));
    const { properties } = table.metadata;
    const mark = readMark(properties, context, `table ${identifier.name}`);
    checkHistory(table);
    const layout = changeLayoutOf(table);
    if (layout && tableName(layout.shape) !== tableName(shape)) {
      throw new TidemarkError(
        'TM405',
        `${tableName(shape)} and ${tableName(layout.shape)} would be one table, ${identifier.name}`,
        { remedy: 'Put {schema} into iceberg.namespace.' },
      );
    }
    const held = mark !== null && mark.sequence >= window.sequence;
    return new TableAppends(table, held, layout, window, writing);
  }

  /** As of the last Change. */
  get layout(): ChangeLayout {
    return this.#layout!;
  }

  /** Null where the table's is good as it is. */
  get changed(): Pick<NextChangeLayout, 'schema' | 'schemaChanged' | 'lastColumnId'> | null {
    return this.#next;
  }

  /**
   * The rows wait for `end`: what follows may go into the same file.
   * @param earlier of the same Window: counting and hashing go on from there
   */
  async add(part: AppendTable, earlier: ChangeRows | null): Promise<ChangeRows> {
    const { shape } = part;
    if (this.#layout) refuseNewKey(this.#layout.shape, shape, 'iceberg.namespace');
    const begun = await PartEvents.begin(part, this.#layout?.shape ?? null);
    const text = JSON.stringify(shape);
    if (this.#staged?.shape !== text) await this.end();
    if (!this.held) this.#advance(shape, begun.since);
    const columns = storedColumns(shape, assignFields(shape, this.layout.fields), storageOf);
    // Rows are in the partition of their Window, whatever their tenant and their own dates.
    const choices = { fits: fitsDuckdb, dates: 'commit' };
    const rows = new ChangeRows({ ...shape, tenantColumn: null }, columns, choices, earlier);
    const { memoryBytes } = this.#writing.settings();
    this.#staged ??= {
      shape: text,
      rows: new StagedRows({ columns, memoryBytes }, this.#writing.connection),
    };
    for await (const batch of begun.batches()) {
      // In slices: a batch may be larger than what should be held twice.
      for (let start = 0; start < batch.length; start += sliceLength) {
        const slice = batch
          .slice(start, start + sliceLength)
          .map((event) => rows.native(event) ?? rows.from(event));
        if (!this.held) await inDuckdb(() => this.#stage(slice));
      }
      // Native buffers are freed in turns of the event loop, which promises alone never reach.
      await setImmediate();
    }
    return rows;
  }

  /** Everything that was added is in files. Two tables stage no rows at a time. */
  async end(): Promise<void> {
    if (this.#staged) await inDuckdb(() => this.#write());
    this.#staged = null;
  }

  async #stage(rows: readonly (ChangeRow | NativeChange)[]): Promise<void> {
    const staged = this.#staged!.rows;
    for (const row of rows) {
      const waiting = staged.add(row, 0);
      if (waiting) await waiting;
      if (staged.full) await this.#write();
    }
  }

  #advance(shape: TableShape, since: string | undefined): void {
    const { metadata } = this.table;
    const schema = this.#next?.schema ?? currentSchema(metadata);
    const last = this.#next?.lastColumnId ?? metadata['last-column-id'];
    const next = nextChangeLayout(this.#layout, schema, last, shape, since);
    this.#next = { ...next, schemaChanged: next.schemaChanged || (this.#next?.schemaChanged ?? false) };
    this.#layout = next.layout;
  }

  async #write(): Promise<void> {
    const round = this.#staged!.rows.take();
    if (round.rows === 0) return;
    const { connection } = this.#writing;
    const settings = this.#writing.settings();
    const { metadata } = this.table;
    const { schema } = this.#next!;
    const { ids } = this.layout;
    const { from, columns } = await round.source(connection, false);
    await mkdir(settings.folder, { recursive: true });
    const fields = boundSpec(metadata, metadata['default-spec-id']);
    const needed = new Set([ids[positionField]!, ...fields.map(({ sourceId }) => sourceId)]);
    const names = new Map(Object.entries(ids).map(([name, id]) => [id, name]));
    const relation = `(SELECT ${columns}, ${this.#ingestTime} AS ${quoteName(ingestField)} FROM ${from})`;
    const source = this.#source(names);
    const target = {
      schema,
      fields,
      sortedBy: [ids[positionField]!],
      sortOrderId: null,
      modes: metricsModes(schema.fields, metadata.properties, needed),
      dataLocation: dataLocation(metadata),
    };
    const partition = await this.#onlyPartition(fields);
    const written = partition
      ? await writeInOrder(connection, relation, partition, target, settings, source)
      : await writeDataFiles(connection, relation, target, settings, source);
    this.files.push(...written);
    await round.drop(connection);
  }

  get #ingestTime(): string {
    return `make_timestamptz(${this.#window.commitTimeUs})`;
  }

  /** The partition of all rows; null where somebody partitioned the table by more than their ingest. */
  async #onlyPartition(fields: readonly BoundPartitionField[]): Promise<PartitionTuple | null> {
    if (fields.some(({ sourceId }) => sourceId !== this.layout.ids[ingestField])) return null;
    if (fields.length === 0) return [];
    const { connection } = this.#writing;
    const values = fields.map((field) => partitionValue(connection, field, this.#ingestTime));
    const found = await connection.runAndReadAll(`SELECT ${values.join(', ')}`);
    return found.getRows()[0]!.map(fromDuckdb);
  }

  /** Of the columns that this shape has; what others added, and earlier columns, are empty. */
  #source(names: ReadonlyMap<number, string>): ColumnSource {
    const { shape, fields } = this.layout;
    const own = new Set(storedColumns(shape, fields, storageOf).map(({ field }) => field));
    return ({ id }) => {
      const name = names.get(id);
      if (name === undefined) return null;
      return own.has(name) || !fields.some(({ field }) => field === name) ? quoteName(name) : null;
    };
  }
}

/** Rows are staged in the order of their Positions, so nothing is sorted, which would take another table of all columns. */
function writeInOrder(
  connection: DuckDBConnection,
  relation: string,
  partition: PartitionTuple,
  table: DataFileTable,
  settings: WriteSettings,
  source: ColumnSource,
): Promise<WrittenFile[]> {
  const columns = fileColumns(table.schema);
  const query = `SELECT ${selectColumns(columns, source)} FROM ${relation}`;
  return writePartition(connection, query, columns, partition, table, settings, '0');
}

async function inDuckdb<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw duckdbFailure(error, 'write Changes', memoryKey);
  }
}

/** For a folder of its own for each call. */
export function writeSettingsIn(
  folder: string,
  settings: Omit<WriteSettings, 'folder'>,
): () => WriteSettings {
  return () => ({ ...settings, folder: join(folder, randomUUID()) });
}
