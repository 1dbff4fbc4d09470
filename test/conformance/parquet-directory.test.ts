import { parquetInDirectory } from './parquet-subject.ts';
import { conformance } from './suite.ts';

conformance(parquetInDirectory);
