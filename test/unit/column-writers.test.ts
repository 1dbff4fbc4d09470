/** What DuckDB's columns take of the forms that values travel in. */
import { expect, test } from 'vitest';
import { columnWriter, type RowSlot } from '../../connectors/duckdb/column-writers.ts';
import { storageOf } from '../../connectors/object-log/storage.ts';
import { ByteReader, ByteWriter } from '../../src/publish/byte-writer.ts';
import { codecFor } from '../../src/publish/types/catalogue.ts';

const types = [
  'smallint',
  'integer',
  'bigint',
  'boolean',
  'real',
  'double precision',
  'numeric(9,2)',
  'date',
].concat('timestamp without time zone', 'timestamp with time zone', 'bytea');

test.each(types)('a %s that is carried as its text has no place in a column of that type', (type) => {
  const out = new ByteWriter();
  out.text('\\x6162');
  const slot: RowSlot = { row: 0, fits: true, heapBytes: 0 };
  codecFor({ type, form: 'text' }).pass!(new ByteReader(out.take()), columnWriter(slot, storageOf(type)));
  expect(slot.fits).toBe(false);
});
