/**
 * Destination kind `clickhouse`: the current rows of each table behind a view that changes from one Window to the next.
 * See README.md. What it is made of is loaded when it is opened.
 */
import type { SinkKind } from '../../../src/connector/sink.ts';
import { optionFields, resolveSettings } from './options.ts';

export const clickhouseSink: SinkKind = {
  name: 'clickhouse',
  unit: 'table',
  options: optionFields,
  leftovers: (options) => ({
    row: 'gone',
    left: [
      ...(options.history === true
        ? ['history: its Changes stay in <table>_changes; delete them by hand']
        : []),
      'parts that ClickHouse did not merge yet: OPTIMIZE TABLE … FINAL merges them at once',
      'backups of the destination',
    ],
  }),
  check: async (context, options) => (await import('./check.ts')).checkDestination(context, options),
  async open(context, options) {
    const settings = resolveSettings(options);
    const { ClickHouseSink } = await import('./sink.ts');
    return new ClickHouseSink(context, settings);
  },
};
