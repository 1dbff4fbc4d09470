/** The sink of mode `append`: every Change. */
import type { TableShape } from '../../../../src/connector/shape.ts';
import type {
  AppendSink,
  AppendWindow,
  Position,
  Readable,
  Receipt,
  Row,
} from '../../../../src/connector/sink.ts';
import { Destination } from '../destination.ts';
import type { OpenTable } from '../lake.ts';
import type { Surroundings } from '../running-table.ts';
import { readLatest } from './read-latest.ts';
import { appendWindow } from './window-append.ts';

export class IcebergAppendSink extends Destination implements AppendSink, Readable {
  readonly mode = 'append';
  readonly #scripts = new Map<string, string>();

  appendWindow(window: AppendWindow): Promise<Receipt> {
    return this.take(window);
  }

  protected write(window: AppendWindow, at: Surroundings, progress: OpenTable): Promise<Receipt> {
    return appendWindow(at, window, progress, this.#scripts);
  }

  async *readTable(shape: TableShape, at: Position, retired?: (rows: Row[]) => void): AsyncIterable<Row[]> {
    yield* readLatest(await this.openLake(), this.context, this.settings, shape, at, retired ?? null);
  }
}
