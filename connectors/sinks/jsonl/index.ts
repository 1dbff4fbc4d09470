/**
 * The jsonl sink: append-only JSON Lines on S3 or a directory. See README.md. What it is made of is loaded when it is
 * opened.
 */
import type { SinkKind } from '../../../src/connector/sink.ts';
import { checkLocation, openStore } from '../../object-log/open-store.ts';
import { jsonlOptionFields, jsonlOptionsFrom, memoryKey, urlKey } from './options.ts';

export const jsonlSink: SinkKind = {
  name: 'jsonl',
  unit: 'table',
  leftovers: () => ({
    row: 'stays',
    left: [
      'files keep every Change, and the delete is one more; only the table as read back is without the row: expire or rewrite the files',
    ],
  }),
  upkeep:
    'It merges small files by itself, between Windows: compact.files and compact.grace of the instance file.',
  options: jsonlOptionFields,

  async check(_context, values) {
    return checkLocation(values, urlKey);
  },

  async open(context, values) {
    const { AppendLog } = await import('../../object-log/append-log.ts');
    const { jsonlFormat } = await import('./jsonl-format.ts');
    const options = jsonlOptionsFrom(values);
    const store = await openStore(options.location);
    return new AppendLog(store, context, jsonlFormat(options.compression), { urlKey, memoryKey, ...options });
  },
};
