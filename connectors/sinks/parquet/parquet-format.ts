/** Parquet files as the data files of a log (connectors/object-log). */
import type { FileEncoderSettings } from '../../object-log/data-file.ts';
import type { LogFormat } from '../../object-log/format.ts';
import { storageOf } from '../../object-log/storage.ts';
import { DuckdbEncoder } from './encode-duckdb.ts';
import { ParquetjsEncoder } from './encode-parquetjs.ts';
import { fitsNatively } from './fits-natively.ts';
import { mergeParquet } from './merge-parquet.ts';
import type { ParquetOptions } from './options.ts';
import { parquetRelation } from './parquet-relation.ts';

export function parquetFormat({
  encoder,
  compression,
  memoryBytes,
  rowGroupRows,
}: ParquetOptions): LogFormat {
  const choices = { compression, memoryBytes, rowGroupRows };
  return {
    name: 'parquet',
    encoder,
    extension: 'parquet',
    contentType: 'application/vnd.apache.parquet',
    storageOf,
    fits: (storage, value) => fitsNatively(storage, value, encoder),
    async open(settings: FileEncoderSettings) {
      const all = { ...settings, ...choices };
      return encoder === 'duckdb' ? DuckdbEncoder.open(all) : new ParquetjsEncoder(all);
    },
    relation: parquetRelation,
    direct: true,
    // parquetjs is there for machines where DuckDB cannot run.
    merge: encoder === 'duckdb' ? (files) => mergeParquet(files, choices) : null,
  };
}
