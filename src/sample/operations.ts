/** Everything the application does, by name, and how often it does it. */
import * as findings from './operations-findings.ts';
import * as runs from './operations-runs.ts';
import type { Operation } from './worker.ts';

interface Entry {
  run: Operation;
  /** Relative frequency; the sum is about 1000. */
  weight: number;
}

export const operations = {
  syncConnection: { run: runs.syncConnection, weight: 290 },
  changeStatus: { run: findings.changeStatus, weight: 170 },
  runRule: { run: runs.runRule, weight: 95 },
  queueDelivery: { run: runs.queueDelivery, weight: 85 },
  attemptDelivery: { run: runs.attemptDelivery, weight: 110 },
  reassign: { run: findings.reassign, weight: 70 },
  browse: { run: runs.browse, weight: 25 },
  touchOldFinding: { run: findings.touchOldFinding, weight: 25 },
  enrichOldEvent: { run: runs.enrichOldEvent, weight: 20 },
  editRepeatedly: { run: findings.editRepeatedly, weight: 20 },
  rewriteEvidence: { run: findings.rewriteEvidence, weight: 15 },
  triageBatch: { run: findings.triageBatch, weight: 12 },
  deleteFindings: { run: findings.deleteFindings, weight: 12 },
  deleteEvents: { run: runs.deleteEvents, weight: 6 },
  insertAndDelete: { run: findings.insertAndDelete, weight: 8 },
  moveToOrganization: { run: findings.moveToOrganization, weight: 8 },
  correctEventTime: { run: runs.correctEventTime, weight: 5 },
  savepoint: { run: runs.savepoint, weight: 12 },
  rollback: { run: runs.rollback, weight: 10 },
  changeSettings: { run: runs.changeSettings, weight: 6 },
  rotateCredential: { run: runs.rotateCredential, weight: 5 },
  startTrial: { run: runs.startTrial, weight: 4 },
  endTrial: { run: runs.endTrial, weight: 3 },
  burst: { run: runs.burst, weight: 5 },
  truncateLog: { run: runs.truncateLog, weight: 1.5 },
} as const satisfies Record<string, Entry>;

export type OperationKind = keyof typeof operations;
export const operationKinds = Object.keys(operations) as OperationKind[];
