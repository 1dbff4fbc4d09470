/**
 * A delivery process for the fault tests: `node deliver-child.ts <configuration as JSON>`. Writes a JSON line per
 * delivered Window, and its peak memory when it is asked to stop.
 */
import { readFileSync } from 'node:fs';
import type { SinkKind } from '../../src/connector/sink.ts';
import type { ResolvedConfig } from '../../src/platform/resolved-config.ts';
import { deliver } from './deliver-harness.ts';
import { MemoryStore, memorySink } from './deliver-memory-sink.ts';

interface Order {
  config: ResolvedConfig;
  /** Where the destination keeps its contents; null: rows are only counted. */
  storeFile: string | null;
  unit: SinkKind['unit'];
  refused?: string;
}

const { config, storeFile, unit, refused } = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as Order;
const stores = new Map<string, MemoryStore>();

function storeOf(destination: string): MemoryStore {
  let store = stores.get(destination);
  if (!store) {
    if (storeFile !== null && stores.size > 0) throw new Error('two destinations would share one file');
    store = new MemoryStore(storeFile);
    store.countOnly = storeFile === null;
    if (refused !== undefined) store.refuseRow = (_, row) => row.includes(refused);
    stores.set(destination, store);
  }
  return store;
}

const write = (fields: Record<string, unknown>) => process.stdout.write(`${JSON.stringify(fields)}\n`);
const delivery = await deliver(
  config,
  memorySink(storeOf, unit),
  ({ destination, sequence, rows, unit: name }) =>
    write({
      event: 'delivered',
      destination,
      unit: name,
      sequence,
      rows,
      counted: storeOf(destination).counted,
      peakMiB: Math.round(process.resourceUsage().maxRSS / 1024),
    }),
);
write({ event: 'started', rssMiB: Math.round(process.memoryUsage().rss / 2 ** 20) });
process.on('SIGTERM', () => {
  void delivery.stop().then(() => process.exit(0));
});
