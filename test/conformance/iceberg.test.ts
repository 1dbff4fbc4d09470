import { icebergSubject } from './iceberg-subject.ts';
import { conformance } from './suite.ts';

conformance(icebergSubject);
