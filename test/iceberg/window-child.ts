/** A Window in a process that may be killed: `node window-child.ts <options> <scratch directory> <Window>`, as JSON. */
import { icebergSink } from '../../connectors/sinks/iceberg/index.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import type { MergeSink, OptionValues, RowState } from '../../src/connector/sink.ts';
import { failpoint } from '../../src/platform/failpoint.ts';
import { windowOf } from './sink-windows.ts';

export interface ChildWindow {
  n: number;
  token: number;
  shape: TableShape;
  rows: RowState[];
}

const [options, scratchDirectory, text] = process.argv.slice(2) as [string, string, string];
const context = { sourceId: 'source', destination: 'lake', scratchDirectory, log: () => {}, failpoint };
const sink = (await icebergSink.open(context, JSON.parse(options) as OptionValues)) as MergeSink;
const { n, token, shape, rows } = JSON.parse(text) as ChildWindow;
await sink.mergeWindow(windowOf(n, BigInt(token), shape, rows));
await sink.close();
