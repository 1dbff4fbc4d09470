/** The Parquet sink: append-only change files on S3 or a directory. See README.md. */

import { TidemarkError } from '../../../src/connector/failure.ts';
import type { CheckFinding, OptionValues, SinkContext, SinkKind } from '../../../src/connector/sink.ts';
import { checkStore } from './check.ts';
import { FileStore } from './file-store.ts';
import type { ObjectStore } from './object-store.ts';
import { type ParquetOptions, parquetOptionFields, parquetOptionsFrom } from './options.ts';
import { ParquetSink } from './parquet-sink.ts';
import { S3Store } from './s3-store.ts';

async function openStore({ target }: ParquetOptions): Promise<ObjectStore> {
  return target.kind === 's3' ? S3Store.open(target) : FileStore.open(target.directory);
}

export const parquetSink: SinkKind = {
  name: 'parquet',
  unit: 'table',
  options: parquetOptionFields,

  async check(_context: SinkContext, values: OptionValues): Promise<CheckFinding[]> {
    let store: ObjectStore;
    try {
      store = await openStore(parquetOptionsFrom(values));
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      return [{ level: 'error', what: error.message, remedy: error.remedy }];
    }
    try {
      return await checkStore(store);
    } finally {
      await store.close();
    }
  },

  async open(context: SinkContext, values: OptionValues): Promise<ParquetSink> {
    const options = parquetOptionsFrom(values);
    return new ParquetSink(await openStore(options), context, options);
  },
};
