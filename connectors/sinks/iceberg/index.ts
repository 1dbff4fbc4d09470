/**
 * Destination kind `iceberg`: the current rows of each table in an Iceberg table (format version 2) of any REST catalog or
 * of Glue. See README.md. What it is made of is loaded when it is opened.
 */
import type { SinkKind } from '../../../src/connector/sink.ts';
import { optionFields, resolveSettings } from './options.ts';

export const icebergSink: SinkKind = {
  name: 'iceberg',
  unit: 'destination',
  options: optionFields,
  leftovers: (options) => ({
    row: 'gone',
    left: [
      ...(options.history === true
        ? ['history: its Changes stay in <table>_changes; delete them by hand']
        : []),
      'data files from before: compaction rewrites them, and the expiry of the snapshots that have them removes them',
    ],
  }),
  check: async (context, options) => (await import('./check.ts')).checkDestination(context, options),
  async open(context, options) {
    const settings = resolveSettings(options);
    const { IcebergSink } = await import('./sink.ts');
    return new IcebergSink(context, settings);
  },
};
