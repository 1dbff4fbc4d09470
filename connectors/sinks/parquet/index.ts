/**
 * The Parquet sink: append-only change files on S3 or a directory. See README.md. What it is made of is loaded when it is
 * opened: a process that delivers elsewhere has neither DuckDB nor the AWS SDK in memory.
 */
import type { SinkKind } from '../../../src/connector/sink.ts';
import { checkLocation, openStore } from '../../object-log/open-store.ts';
import { memoryKey, parquetOptionFields, parquetOptionsFrom, urlKey } from './options.ts';

export const parquetSink: SinkKind = {
  name: 'parquet',
  unit: 'table',
  leftovers: () => ({
    row: 'stays',
    left: [
      'files keep every Change, and the delete is one more; only the table as read back is without the row: expire or rewrite the files',
    ],
  }),
  upkeep:
    'It merges small files by itself, between Windows: compact.files and compact.grace of the instance file.',
  options: parquetOptionFields,

  async check(_context, values) {
    return checkLocation(values, urlKey);
  },

  async open(context, values) {
    const { AppendLog } = await import('../../object-log/append-log.ts');
    const { parquetFormat } = await import('./parquet-format.ts');
    const options = parquetOptionsFrom(values);
    const store = await openStore(options.location);
    return new AppendLog(store, context, parquetFormat(options), { urlKey, memoryKey, ...options });
  },
};
