/** What every command is given, and what its exit code means. */

import type { SinkKind } from '../connector/sink.ts';
import { loadConfig } from '../platform/config.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { Logger } from '../platform/log.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { parseTableName, tableName } from '../platform/table-name.ts';

export interface CommandContext {
  /** Path of tidemark.yaml. */
  configFile: string;
  /** Machine-readable output on stdout. */
  json: boolean;
  log: Logger;
  sinkKinds: ReadonlyMap<string, SinkKind>;
  stdout: (text: string) => void;
  /** Aborted by the first SIGINT or SIGTERM. */
  signal: AbortSignal;
}

export const exitCode = {
  ok: 0,
  /** The answer is no: check found errors, verify found differences. */
  no: 1,
  /** Wrong usage or configuration. */
  usage: 2,
  /** Stopped by an error that needs somebody. */
  stopped: 3,
  /** Something did not answer. */
  unreachable: 4,
} as const;

export function configOf(context: CommandContext): Promise<ResolvedConfig> {
  return loadConfig(context.configFile, context.sinkKinds);
}

/** A table as somebody named it, in the spelling that everything else uses. @throws TidemarkError TM101 */
export function tableArgument(text: string): string {
  const table = parseTableName(text);
  if (table) return tableName(table);
  throw new TidemarkError('TM101', `${text} is no name of a table`, {
    remedy: 'Write schema.table; a name with a dot, comma, star, quote or space in it in double quotes.',
  });
}
