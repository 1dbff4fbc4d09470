/** Kind `jsonl`: zstd in a directory, gzip in a bucket. */
import { jsonlSink } from '../../connectors/sinks/jsonl/index.ts';
import { changes, latestRows } from './jsonl-reader.ts';
import { inBucket, inDirectory } from './object-log-subject.ts';

const jsonl = {
  kind: jsonlSink,
  latestRows,
  changes,
  bucketOptions: { 'jsonl.compression': 'gzip' },
};

export const jsonlInDirectory = inDirectory(jsonl);
export const jsonlInBucket = inBucket(jsonl);
