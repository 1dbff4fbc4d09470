import { jsonlInDirectory } from './jsonl-subject.ts';
import { conformance } from './suite.ts';

conformance(jsonlInDirectory);
