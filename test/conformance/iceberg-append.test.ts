import { icebergAppendSubject } from './iceberg-subject.ts';
import { conformance } from './suite.ts';

conformance(icebergAppendSubject);
