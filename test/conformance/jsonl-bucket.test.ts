import { jsonlInBucket } from './jsonl-subject.ts';
import { conformance } from './suite.ts';

conformance(jsonlInBucket);
