/**
 * The Parquet sink: append-only change files on S3 or a directory. See README.md. What it is made of is loaded when it is
 * opened: a process that delivers elsewhere has neither DuckDB nor the AWS SDK in memory.
 */
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { SinkKind } from '../../../src/connector/sink.ts';
import type { ObjectStore } from './object-store.ts';
import { type ParquetOptions, parquetOptionFields, parquetOptionsFrom } from './options.ts';

async function openStore({ target }: ParquetOptions): Promise<ObjectStore> {
  if (target.kind !== 's3') return (await import('./file-store.ts')).FileStore.open(target.directory);
  return (await import('./s3-store.ts')).S3Store.open(target);
}

export const parquetSink: SinkKind = {
  name: 'parquet',
  unit: 'table',
  options: parquetOptionFields,

  async check(_context, values) {
    const { checkStore } = await import('./check.ts');
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

  async open(context, values) {
    const { ParquetSink } = await import('./parquet-sink.ts');
    const options = parquetOptionsFrom(values);
    return new ParquetSink(await openStore(options), context, options);
  },
};
