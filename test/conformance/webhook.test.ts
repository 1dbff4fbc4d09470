import { conformance } from './suite.ts';
import { webhookSubject } from './webhook-subject.ts';

conformance(webhookSubject);
