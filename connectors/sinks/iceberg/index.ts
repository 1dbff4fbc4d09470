/**
 * Destination kind `iceberg`: the current rows of each table, or all of its Changes, in an Iceberg table (format version 2) of
 * any REST catalog or of Glue. See README.md. What it is made of is loaded when it is opened.
 */
import type { SinkKind } from '../../../src/connector/sink.ts';
import { optionFields, resolveSettings } from './options.ts';

export const icebergSink: SinkKind = {
  name: 'iceberg',
  unit: 'destination',
  options: optionFields,
  leftovers: (options) => ({
    row: options['iceberg.mode'] === 'append' ? 'stays' : 'gone',
    left: [
      ...(options['iceberg.mode'] === 'append'
        ? ['tables keep every Change, and the delete is one more: delete the row’s Changes by hand']
        : []),
      ...(options.history === true
        ? ['history: its Changes stay in <table>_changes; delete them by hand']
        : []),
      'data files from before: compaction rewrites them, and the expiry of the snapshots that have them removes them',
    ],
  }),
  check: async (context, options) => (await import('./check.ts')).checkDestination(context, options),
  async open(context, options) {
    const settings = resolveSettings(options);
    if (settings.mode === 'append') {
      const { IcebergAppendSink } = await import('./append/append-sink.ts');
      return new IcebergAppendSink(context, settings);
    }
    const { IcebergSink } = await import('./sink.ts');
    return new IcebergSink(context, settings);
  },
};
