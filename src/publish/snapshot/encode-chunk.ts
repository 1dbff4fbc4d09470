/** A chunk's rows as records, at the commit of its high mark: they take Positions under it. */
import { formatPosition } from '../../connector/position.ts';
import { tableName } from '../../connector/shape.ts';
import { TidemarkError } from '../../platform/errors.ts';
import type { Logger } from '../../platform/log.ts';
import { Tuple } from '../../replicate/pgoutput.ts';
import type { Batch } from '../batch.ts';
import { ByteWriter } from '../byte-writer.ts';
import type { Parking } from '../parking.ts';
import type { RecordWriter } from '../record-writer.ts';
import type { StreamPlace } from '../stream-place.ts';
import { parksTable } from '../table-preparation.ts';
import type { DueChunk } from './table-snapshots.ts';

/** The row that is being encoded. */
const row = new Tuple();
const rowKey = new ByteWriter(1024);
const images = { before: null, after: row, fallback: null, fill: null };

/**
 * All rows at once, so that no batch ever ends between them: what is in Kafka of a chunk is the whole of it, with its
 * cursor.
 */
export function encodeChunk(
  due: DueChunk,
  batch: Batch,
  to: { place: StreamPlace; records: RecordWriter; parking: Parking; log: Logger },
): void {
  const { place, records, parking, log } = to;
  const { chunk } = due;
  const rows = chunk.rows!;
  const { encoder } = chunk.content!;
  const name = tableName(encoder.shape);
  if (parking.holds(name)) {
    const error = new TidemarkError('TM223', `${name} is parked, so its snapshot cannot go on`);
    chunk.settle({ kind: 'stopped', error });
    return;
  }
  if (due.reshaped) {
    chunk.settle({ kind: 'void', reason: 'shape' });
    return;
  }
  const { ordinal, position } = place;
  batch.savepoint();
  try {
    for (let i = 0; i < rows.count; i++) {
      rows.read(i, row);
      rowKey.position = 0;
      encoder.writeKey(row, null, rowKey);
      const key = rowKey.bytes.subarray(0, rowKey.position);
      if (!due.take(key, () => encoder.keyTexts(row, null))) continue;
      if (place.next()) batch.changes++;
      records.row(batch, place, encoder, 'r', rowKey, images, null, chunk.into);
    }
  } catch (error) {
    if (!parksTable(error)) throw error;
    batch.rollback();
    place.ordinal = ordinal;
    place.position = position;
    chunk.settle({ kind: 'stopped', error });
    return;
  }
  if (batch.records > batch.saved.records) batch.hasChunk = true;
  const { commitLsn } = place.transaction;
  due.published(formatPosition({ epoch: place.epoch, lsn: commitLsn, ordinal: place.ordinal }), () =>
    log.warn(`the snapshot of ${name} starts over: too many rows changed while they were read`),
  );
}
