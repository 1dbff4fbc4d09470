/** Net effect of a Window on a table without a key: how many copies more or fewer of each full row there are. */
import { BOOLEAN, DuckDBDataChunk, type DuckDBValue, INTEGER, VARCHAR } from '@duckdb/node-api';
import { hashCells } from '../connector/row-hash.ts';
import type { PartialRow, RowCount } from '../connector/sink.ts';
import { newRow, oldRow } from './keyless-rows.ts';
import type { RowReader } from './row-schemas.ts';
import { batchBytes } from './row-states.ts';
import { changeColumnsOf, streamRows } from './spilled-columns.ts';
import type { Range } from './stored-change.ts';
import type { UnitStore } from './unit-store.ts';
import { storeError } from './window-store.ts';

const chunkRows = 2048;
const imageTypes = [VARCHAR, INTEGER, VARCHAR, BOOLEAN, BOOLEAN];

/**
 * Row images are counted by their 128-bit hash, in DuckDB, which spills; a row of which copies remain is read again
 * from one of the Changes that had it. So memory holds neither rows nor the number of different ones.
 */
export async function* rowCounts(
  store: UnitStore,
  range: Range,
  topic: number,
  reader: RowReader,
): AsyncIterable<RowCount[]> {
  const spilled = await store.spilled();
  const source = spilled.rowsSql(range, topic);
  if (!source) return;
  const connection = await spilled.connect();
  try {
    await connection.run(
      'create temp table images (hash varchar, delta integer, position varchar, old boolean, pending boolean)',
    );
    const appender = await connection.createAppender('images', null, 'temp');
    const chunk = DuckDBDataChunk.create(imageTypes, chunkRows);
    let columns: DuckDBValue[][] = imageTypes.map(() => []);
    const flush = () => {
      try {
        chunk.reset();
        chunk.rowCount = columns[0]!.length;
        chunk.setColumns(columns);
        appender.appendDataChunk(chunk);
      } catch (error) {
        throw storeError(error);
      }
      columns = imageTypes.map(() => []);
    };
    const count = (row: PartialRow, delta: number, position: string, old: boolean, pending: boolean) => {
      [hashCells(row).toString(16), delta, position, old, pending].forEach((value, i) => {
        columns[i]!.push(value);
      });
      if (columns[0]!.length === chunkRows) flush();
    };
    for await (const changes of spilled.read(range, topic, 'position')) {
      for (const change of changes) {
        if (change.truncate) continue;
        const shaped = reader.read(change);
        const { op, pending } = shaped;
        if (op === 'u' || op === 'd')
          count(oldRow(shaped.before, reader), -1, change.position, true, pending);
        if (op !== 'd') count(newRow(shaped, reader), 1, change.position, false, false);
      }
    }
    if (columns[0]!.length > 0) flush();
    appender.closeSync();
    const counted = streamRows(
      connection,
      `with net as (
         select sum(delta)::integer as count, min(position || case when old then '-' else '+' end) as seen,
                count(*) filter (where pending)::integer as pending
         from images group by hash having sum(delta) <> 0)
       select ${changeColumnsOf('r')}, net.count, right(net.seen, 1) = '-', net.pending
       from net join ${source} r on r.position = left(net.seen, -1)`,
      (values, row) => ({
        change: spilled.storedChange(values, row),
        count: values[12]![row] as number,
        old: values[13]![row] as boolean,
        pending: values[14]![row] as number,
      }),
    );
    for await (const batch of counted) {
      let counts: RowCount[] = [];
      let bytes = 0;
      for (const { change, count, old, pending } of batch) {
        const shaped = reader.read(change);
        const values = old ? oldRow(shaped.before, reader) : newRow(shaped, reader);
        const mayBeAbsent = Math.min(pending, Math.max(0, -count));
        counts.push({ values, count, ...(mayBeAbsent > 0 ? { mayBeAbsent } : {}) });
        bytes += change.bytes;
        if (bytes <= batchBytes) continue;
        yield counts;
        counts = [];
        bytes = 0;
      }
      if (counts.length > 0) yield counts;
    }
  } finally {
    connection.closeSync();
  }
}
