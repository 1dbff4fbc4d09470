import { parquetInBucket } from './parquet-subject.ts';
import { conformance } from './suite.ts';

conformance(parquetInBucket);
