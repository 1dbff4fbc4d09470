import { clickhouseSubject } from './clickhouse-subject.ts';
import { conformance } from './suite.ts';

conformance(clickhouseSubject);
