/** What the Changes of an append-only Iceberg table say to a stranger who runs the script beside it in DuckDB. */
import { VARCHAR } from '@duckdb/node-api';
import { ChunkAppender } from '../../connectors/duckdb/chunk-appender.ts';
import { duckdbType } from '../../connectors/sinks/iceberg/files/duckdb-type.ts';
import type { NestedField } from '../../connectors/sinks/iceberg/spec/schema.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import type { Cell, Row } from '../../src/connector/sink.ts';
import { eventOf, type Field, fieldsOfColumn, inDuckdb, rowsOfScript } from './parquet-reader.ts';
import type { SeenEvent } from './subject.ts';

export interface TableChanges {
  /** Of the table's schema. */
  fields: readonly NestedField[];
  /** In the order of the fields, as Postgres prints them. */
  rows: readonly Row[];
  script: string;
  /** Which field holds which column. */
  columns: readonly Field[];
}

export async function latestRows(changes: TableChanges | null, shape: TableShape): Promise<Row[]> {
  if (changes === null) return [];
  const { fields, rows, script, columns } = changes;
  return inDuckdb(async (connection) => {
    await connection.run('CREATE OR REPLACE TEMP TABLE texts (row VARCHAR)');
    const appender = new ChunkAppender([VARCHAR]);
    await appender.into(connection, 'texts');
    for (const row of rows)
      appender.add([JSON.stringify(row.map((cell, i) => (isList(fields[i]!) ? jsonList(cell) : cell)))]);
    appender.end();
    const selected = fields.map((field, i) => `${typed(field, i)} AS "${field.name.replaceAll('"', '""')}"`);
    await connection.run(
      `CREATE OR REPLACE TEMP TABLE seen_changes AS SELECT ${selected.join(', ')} FROM texts`,
    );
    // No catalog is attached here.
    const moved = script.replace(
      /^(CREATE OR REPLACE TEMP VIEW tidemark_source AS FROM) .*;$/m,
      '$1 seen_changes;',
    );
    const own = shape.columns.map(({ name }) => fieldsOfColumn(columns, name)[0] ?? name);
    return rowsOfScript(connection, moved, shape, own);
  });
}

function typed({ type }: NestedField, index: number): string {
  const text = `from_json(row, '["VARCHAR"]')[${index + 1}]`;
  if (typeof type !== 'string') return `from_json(${text}, '["VARCHAR"]')`;
  return type === 'binary' ? `unhex(substr(${text}, 3))` : `CAST(${text} AS ${duckdbType(type)})`;
}

/** In the order of their Positions. */
export async function seenEvents(changes: TableChanges | null, shape: TableShape): Promise<SeenEvent[]> {
  if (changes === null) return [];
  const { fields, rows, columns } = changes;
  const seen = rows.map((row) => {
    const cells = row.map(
      (cell, i) => [fields[i]!.name, isList(fields[i]!) ? jsonList(cell) : cell] as const,
    );
    return eventOf(new Map(cells), columns, shape);
  });
  // A key change has its delete and its create at one Position.
  const order = ({ position, op }: SeenEvent) => `${position}${op === 'd' ? 0 : 1}`;
  return seen.sort((a, b) => (order(a) < order(b) ? -1 : 1));
}

function isList({ type }: NestedField): boolean {
  return typeof type !== 'string';
}

/** @param text of an array, as Postgres prints it */
function jsonList(text: Cell): Cell {
  if (text === null) return null;
  const elements = [...text.slice(1, -1).matchAll(/"((?:[^"\\]|\\.)*)"|([^,]+)/gs)];
  return JSON.stringify(
    elements.map(([, quoted, plain]) =>
      plain === 'NULL' ? null : (plain ?? quoted!.replace(/\\(.)/gs, '$1')),
    ),
  );
}
