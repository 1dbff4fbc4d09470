/** Upkeep in a process that may be killed: `node maintain-child.ts <options> <scratch directory> <request>`, as JSON. */
import { icebergSink } from '../../connectors/sinks/iceberg/index.ts';
import type { Maintainable, OptionValues, UpkeepRequest } from '../../src/connector/sink.ts';
import { failpoint } from '../../src/platform/failpoint.ts';

const [options, scratchDirectory, request] = process.argv.slice(2) as [string, string, string];
const context = { sourceId: 'source', destination: 'lake', scratchDirectory, log: () => {}, failpoint };
const sink = await icebergSink.open(context, JSON.parse(options) as OptionValues);
await (sink as unknown as Maintainable).maintain({
  ...(JSON.parse(request) as UpkeepRequest),
  signal: new AbortController().signal,
  onProgress() {},
});
await sink.close();
