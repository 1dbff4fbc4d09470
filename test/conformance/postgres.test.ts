import { postgresSubject } from './postgres-subject.ts';
import { conformance } from './suite.ts';

conformance(postgresSubject);
