/**
 * Every Change of a table in an append-only table beside it, `<table>_changes`. Values are maps of Postgres' own text by
 * column, which outlive every shape that the table had.
 */
import { mkdir } from 'node:fs/promises';
import { BIGINT, type DuckDBConnection, VARCHAR } from '@duckdb/node-api';
import type { TableShape } from '../../../../src/connector/shape.ts';
import type { Cell, PartialRow, RowEvent } from '../../../../src/connector/sink.ts';
import { ChunkAppender } from '../../../duckdb/chunk-appender.ts';
import type { TableCreation } from '../catalog/catalog.ts';
import type { JsonObject } from '../catalog/exact-json.ts';
import { dataLocation } from '../commit/locations.ts';
import { metricsModes } from '../files/metrics-mode.ts';
import { type WriteSettings, writeDataFiles } from '../files/write-data-files.ts';
import { boundSpec } from '../plan/table-reader.ts';
import { creationProperties, type Owner, ownerProperties } from '../progress/properties.ts';
import { firstPartitionFieldId } from '../spec/partition-spec.ts';
import type { NestedField, Type } from '../spec/schema.ts';
import { currentSchema, type TableMetadata } from '../spec/table-metadata.ts';
import type { FinishedRows } from './finish-table.ts';

const names = [
  'op',
  'position',
  'commit_time',
  'key',
  'values',
  'unchanged',
  'previous_key',
  'before',
] as const;
const positionId = 2;
const commitTimeId = 3;

/** Nested fields are numbered behind all others, as catalogs number them. */
function fields(): NestedField[] {
  let next = names.length;
  const texts = (): Type => {
    next += 2;
    return {
      type: 'map',
      'key-id': next - 1,
      key: 'string',
      'value-id': next,
      'value-required': false,
      value: 'string',
    };
  };
  const list = (): Type => {
    next += 1;
    return { type: 'list', 'element-id': next, 'element-required': true, element: 'string' };
  };
  return names.map((name, i) => {
    const plain = { op: 'string', position: 'string', commit_time: 'timestamptz' } as const;
    const type = name in plain ? plain[name as keyof typeof plain] : name === 'unchanged' ? list() : texts();
    return { id: i + 1, name, required: name in plain, type };
  });
}

export function newHistory(owner: Owner): Omit<TableCreation, 'identifier'> {
  const day = {
    'source-id': commitTimeId,
    'field-id': firstPartitionFieldId,
    name: 'commit_day',
    transform: 'day',
  };
  return {
    schema: { type: 'struct', 'schema-id': 0, fields: fields() } as unknown as JsonObject,
    partitionSpec: { 'spec-id': 0, fields: [day] },
    properties: {
      ...ownerProperties(owner),
      ...creationProperties,
      'format-version': '2',
      'write.parquet.compression-codec': 'zstd',
      'write.metadata.metrics.column.position': 'full',
    },
  };
}

/** Field ids of what rows of such a table are sorted by; none of a table that is none. */
export function changesOrder(schema: readonly NestedField[]): number[] {
  return schema.filter(({ id, name }) => id === positionId && name === 'position').map(({ id }) => id);
}

export class HistoryRows {
  readonly #connection: DuckDBConnection;
  readonly #table: string;
  readonly #appender = new ChunkAppender([VARCHAR, VARCHAR, BIGINT, ...Array(5).fill(VARCHAR)]);
  #begun = false;
  rows = 0;

  constructor(connection: DuckDBConnection, table: string) {
    this.#connection = connection;
    this.#table = table;
  }

  async begin(): Promise<void> {
    await this.#connection.run(
      `CREATE TEMP TABLE ${this.#table} (op VARCHAR, position VARCHAR, commit_us BIGINT, ${names
        .slice(3)
        .map((name) => `"${name}" VARCHAR`)
        .join(', ')})`,
    );
    await this.#appender.into(this.#connection, this.#table);
    this.#begun = true;
  }

  add(shape: TableShape, event: RowEvent): void {
    const { op, position, commitTimeUs, key, values, previousKey, before } = event;
    const keyNames = shape.keyColumns.map((i) => shape.columns[i]!.name);
    const own = shape.columns.map(({ name }) => name);
    const full: PartialRow = own.map((_, i) => values[i]);
    for (const [k, i] of shape.keyColumns.entries()) if (key.length > 0) full[i] = key[k]!;
    const shown = op === 'c' || op === 'u' || op === 'r';
    const unchanged = shown ? own.filter((_, i) => full[i] === undefined) : [];
    this.#appender.add([
      op,
      position,
      commitTimeUs,
      key.length > 0 ? textsOf(keyNames, key) : null,
      op === 't' || op === 'e' ? null : textsOf(own, full),
      unchanged.length > 0 ? JSON.stringify(unchanged) : null,
      previousKey && textsOf(keyNames, previousKey),
      before && textsOf(own, before),
    ]);
    this.rows += 1;
  }

  /** @param settings of a folder of this call's own */
  async finish(metadata: TableMetadata, settings: WriteSettings): Promise<FinishedRows> {
    if (this.#begun) this.#appender.end();
    await mkdir(settings.folder, { recursive: true });
    const texts = (name: string) => `CAST(CAST("${name}" AS JSON) AS MAP(VARCHAR, VARCHAR)) AS "${name}"`;
    const relation = `(SELECT op, position, CAST(make_timestamp(commit_us) AS TIMESTAMPTZ) AS commit_time,
      from_json(unchanged, '["VARCHAR"]') AS unchanged, ${['key', 'values', 'previous_key', 'before'].map(texts).join(', ')}
      FROM ${this.#table})`;
    const schema = currentSchema(metadata);
    const specId = metadata['default-spec-id'];
    const files = await writeDataFiles(
      this.#connection,
      relation,
      {
        schema,
        fields: boundSpec(metadata, specId),
        sortedBy: [positionId],
        sortOrderId: null,
        modes: metricsModes(schema.fields, metadata.properties, new Set([positionId, commitTimeId])),
        dataLocation: dataLocation(metadata),
      },
      settings,
    );
    return { added: files.map(({ file }) => ({ file, specId })), removed: [], files };
  }
}

function textsOf(columns: readonly string[], cells: readonly (Cell | undefined)[]): string {
  const object = Object.create(null) as Record<string, Cell>;
  for (const [i, name] of columns.entries()) {
    const cell = cells[i];
    if (cell !== undefined) object[name] = cell;
  }
  return JSON.stringify(object);
}
