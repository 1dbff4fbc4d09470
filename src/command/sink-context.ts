/** The SinkContext of a destination, for commands that open or check a sink themselves. */
import { join } from 'node:path';
import type { SinkContext } from '../connector/sink.ts';
import { failpoint } from '../platform/failpoint.ts';
import type { Logger } from '../platform/log.ts';
import type { DestinationConfig, ResolvedConfig } from '../platform/resolved-config.ts';

export function sinkContext(
  config: ResolvedConfig,
  destination: DestinationConfig,
  log: Logger,
): SinkContext {
  const named = log.child({ destination: destination.name });
  return {
    sourceId: config.source.id,
    destination: destination.name,
    scratchDirectory: join(config.deliver.spillDirectory, destination.name, `scratch-${process.pid}`),
    log: (level, message, fields) => named[level](message, fields),
    failpoint,
  };
}
