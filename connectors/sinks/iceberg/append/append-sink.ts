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
import type { Lake, OpenTable } from '../lake.ts';
import { identifierOf } from '../names.ts';
import type { Surroundings } from '../running-table.ts';
import { changeLayoutOf } from './changes-table.ts';
import { writeScript } from './latest-script.ts';
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

  protected override async makeUp(window: AppendWindow, lake: Lake): Promise<void> {
    for (const { shape } of window.tables) {
      const table = await lake.load(identifierOf(this.settings.namespace, shape));
      const layout = table && changeLayoutOf(table);
      if (layout) await writeScript(table, layout, this.#scripts, this.context.log);
    }
  }

  async *readTable(shape: TableShape, at: Position, retired?: (rows: Row[]) => void): AsyncIterable<Row[]> {
    yield* readLatest(await this.openLake(), this.context, this.settings, shape, at, retired ?? null);
  }
}
