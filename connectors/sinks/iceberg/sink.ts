/** The sink of mode `merge`: current rows. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { TableShape } from '../../../src/connector/shape.ts';
import type {
  MergeSink,
  MergeWindow,
  Position,
  Readable,
  Receipt,
  Row,
} from '../../../src/connector/sink.ts';
import { Destination } from './destination.ts';
import type { OpenTable } from './lake.ts';
import { readRows } from './read-back.ts';
import type { Surroundings } from './running-table.ts';
import { WindowMerge } from './window-merge.ts';

export class IcebergSink extends Destination implements MergeSink, Readable {
  readonly mode = 'merge';

  mergeWindow(window: MergeWindow): Promise<Receipt> {
    return this.take(window);
  }

  protected write(window: MergeWindow, at: Surroundings, progress: OpenTable): Promise<Receipt> {
    return new WindowMerge(at, window, progress).run();
  }

  async *readTable(shape: TableShape, at: Position, retired?: (rows: Row[]) => void): AsyncIterable<Row[]> {
    const lake = await this.openLake();
    const held = await (await this.progressTable()).held();
    if (held && held.position > at) {
      throw new TidemarkError(
        'TM408',
        `${this.context.destination}: holds Position ${held.position}, beyond the requested ${at}`,
      );
    }
    yield* readRows(lake, this.context, this.settings, shape, retired ?? null);
  }
}
