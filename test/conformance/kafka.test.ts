import { kafkaSubject } from './kafka-subject.ts';
import { conformance } from './suite.ts';

conformance(kafkaSubject);
