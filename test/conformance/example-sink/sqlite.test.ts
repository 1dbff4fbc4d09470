import { conformance } from '../suite.ts';
import { sqliteSubject } from './subject.ts';

conformance(sqliteSubject);
