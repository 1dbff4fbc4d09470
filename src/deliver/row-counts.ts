/** Net effect of a Window on a table without a key: how many copies more or fewer of each full row there are. */
import { DuckDBDataChunk, INTEGER, VARCHAR } from '@duckdb/node-api';
import type { Cell, PartialRow, Row, RowCount } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { RowReader } from './row-schemas.ts';
import { type Range, streamRows, type UnitStore } from './unit-store.ts';
import { storeError } from './window-store.ts';

const chunkRows = 2048;

/** Images are counted in DuckDB, which spills: a Window may hold any number of different rows. */
export async function* rowCounts(
  store: UnitStore,
  range: Range,
  topic: number,
  reader: RowReader,
): AsyncIterable<RowCount[]> {
  const connection = await store.connect();
  try {
    await connection.run('create temp table images (image varchar, delta integer)');
    const appender = await connection.createAppender('images', null, 'temp');
    const chunk = DuckDBDataChunk.create([VARCHAR, INTEGER], chunkRows);
    let images: string[] = [];
    let deltas: number[] = [];
    const flush = () => {
      try {
        chunk.reset();
        chunk.rowCount = images.length;
        chunk.setColumns([images, deltas]);
        appender.appendDataChunk(chunk);
      } catch (error) {
        throw storeError(error);
      }
      images = [];
      deltas = [];
    };
    const count = (row: PartialRow, delta: number) => {
      images.push(JSON.stringify(row));
      if (deltas.push(delta) === chunkRows) flush();
    };
    for await (const changes of store.read(range, topic, 'position')) {
      await reader.prepare(changes);
      for (const change of changes) {
        if (change.truncate) continue;
        const { op, before, after } = reader.read(change);
        if (op === 'u' || op === 'd') count(oldRow(before, reader), -1);
        if (op !== 'd') count(fillUnchanged(after!, before, reader), 1);
      }
    }
    if (images.length > 0) flush();
    appender.closeSync();
    yield* streamRows(
      connection,
      `select image, sum(delta)::integer from images group by image having sum(delta) <> 0`,
      (values, row): RowCount => ({
        values: JSON.parse(values[0]![row] as string) as Row,
        count: values[1]![row] as number,
      }),
    );
  } finally {
    connection.closeSync();
  }
}

/** The whole row after an update, where the old one is whole (replica identity full). */
export function fillUnchanged(after: PartialRow, before: Row | null, reader: RowReader): Row {
  return after.map((cell, i): Cell => {
    if (cell !== undefined) return cell;
    return oldRow(before, reader)[i]!;
  });
}

function oldRow(before: Row | null, { shape }: RowReader): Row {
  if (before) return before;
  throw new TidemarkError('TM407', `an update or delete in ${shape.schema}.${shape.name} has no old row`, {
    remedy: `Run \`alter table ${shape.schema}.${shape.name} replica identity full\`, or give it a primary key; then rebuild it.`,
  });
}
