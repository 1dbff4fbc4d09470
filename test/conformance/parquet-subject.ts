/** Kind `parquet`, in a directory and in a bucket. */
import { parquetSink } from '../../connectors/sinks/parquet/index.ts';
import { inBucket, inDirectory } from './object-log-subject.ts';
import { changes, latestRows } from './parquet-reader.ts';

const parquet = { kind: parquetSink, latestRows, changes };

export const parquetInDirectory = inDirectory(parquet);
export const parquetInBucket = inBucket(parquet);
