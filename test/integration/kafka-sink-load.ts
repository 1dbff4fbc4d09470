/** Windows whose content follows from their number. */
import type { RowEvent } from '../../src/connector/sink.ts';
import { at, column, event, shapeOf } from './kafka-sink-harness.ts';

export const rowsPerWindow = 3000;
const rowsPerBatch = 500;

export const manyShape = shapeOf('many', [
  column('id', 'integer', 1, true),
  column('window', 'integer', 2),
  column('text', 'text', 3),
]);

/** @param between called before each batch */
export async function* manyEvents(
  sequence: number,
  between: () => Promise<void> = async () => {},
): AsyncIterable<RowEvent[]> {
  for (let first = 0; first < rowsPerWindow; first += rowsPerBatch) {
    await between();
    yield Array.from({ length: rowsPerBatch }, (_, i) => {
      const id = String(sequence * rowsPerWindow + first + i);
      const values = [id, String(sequence), `text of ${id}`];
      return event('c', at(sequence * 1000, first + i + 1), { key: [id], values });
    });
  }
}
