/** JSON Lines as the data files of a log (connectors/object-log). */
import type { LogFormat } from '../../object-log/format.ts';
import { extensions } from './compressor.ts';
import { JsonlEncoder } from './encode-jsonl.ts';
import { jsonStorageOf } from './json-line.ts';
import { jsonlRelation } from './jsonl-relation.ts';
import { mergeJsonl } from './merge-jsonl.ts';
import type { Compression } from './options.ts';

const contentTypes = { zstd: 'application/zstd', gzip: 'application/gzip' };

export function jsonlFormat(compression: Compression): LogFormat {
  return {
    name: 'jsonl',
    encoder: `jsonl-${compression}`,
    extension: extensions[compression],
    contentType: contentTypes[compression],
    storageOf: jsonStorageOf,
    // A string holds any value.
    fits: () => true,
    open: async (settings) => new JsonlEncoder(settings, compression),
    relation: (files) => jsonlRelation(files, compression),
    direct: false,
    merge: (files) => mergeJsonl(files, compression),
  };
}
