/** What people and rules do with findings. Updates that leave `evidence` alone send it as unchanged TOAST. */
import { microsPerDay, timestamp } from './clock.ts';
import { findingRow, severities } from './rows.ts';
import * as values from './values.ts';
import { audit, draw, insertFindings, type Operation } from './worker.ts';

const nextStatus: Record<string, readonly string[]> = {
  open: ['triaged', 'triaged', 'in_progress', 'suppressed', 'resolved'],
  triaged: ['in_progress', 'in_progress', 'resolved', 'suppressed'],
  in_progress: ['resolved', 'resolved', 'resolved', 'open'],
  resolved: ['open'],
  suppressed: ['open'],
};

/** Moves a finding through its life, with the audit row in the same transaction. */
export const changeStatus: Operation = async (worker) => {
  const finding = worker.state.findings.pick(worker.prng);
  if (!finding) return false;
  const { prng } = worker;
  // Closed findings mostly stay closed.
  const closed = finding.status === 'resolved' || finding.status === 'suppressed';
  const status = closed && prng.chance(0.8) ? finding.status : prng.pick(nextStatus[finding.status]!);
  const now = worker.clock.tick();
  await worker.session.update(
    'findings',
    `status = $3, resolved_at = $4, suppressed_until = $5, updated_at = $6,
     reopened_count = reopened_count + $7
     WHERE organization_id = $1 AND id = $2`,
    [
      finding.organization,
      finding.id,
      status,
      status === 'resolved' ? timestamp(now) : null,
      status === 'suppressed' ? values.suppressedUntil(prng, now, worker.hostile) : null,
      timestamp(now),
      closed && status === 'open' ? 1 : 0,
    ],
  );
  await audit(worker, finding.organization, `finding.${status}`, finding.id);
  worker.session.afterCommit(() => {
    finding.status = status;
  });
  return 'commit';
};

/** Gives a finding to another person of the same organization, or to nobody. */
export const reassign: Operation = async (worker) => {
  const finding = worker.state.findings.pick(worker.prng);
  if (!finding) return false;
  const assignee = worker.prng.chance(0.1) ? null : values.email(worker.prng);
  await worker.session.update(
    'findings',
    'assignee_email = $3, updated_at = $4 WHERE organization_id = $1 AND id = $2',
    [finding.organization, finding.id, assignee, timestamp(worker.clock.tick())],
  );
  return 'commit';
};

/** A company was bought: the finding and its deliveries get another organization, which is part of their keys. */
export const moveToOrganization: Operation = async (worker) => {
  const { prng, session, state } = worker;
  const finding = state.findings.pick(prng);
  if (!finding || state.organizations.length < 2) return false;
  const others = state.organizations.filter((id) => id !== finding.organization);
  const target = prng.pick(others);
  const now = timestamp(worker.clock.tick());
  await session.update(
    'findings',
    'organization_id = $3, connection_id = NULL, updated_at = $4 WHERE organization_id = $1 AND id = $2',
    [finding.organization, finding.id, target, now],
  );
  await session.update(
    'workflow_deliveries',
    'organization_id = $3, updated_at = $4 WHERE organization_id = $1 AND finding_id = $2',
    [finding.organization, finding.id, target, now],
  );
  await audit(worker, finding.organization, 'finding.moved_out', finding.id);
  await audit(worker, target, 'finding.moved_in', finding.id);
  session.afterCommit(() => {
    finding.organization = target;
  });
  return 'commit';
};

/** Proof was captured again: a new large value, or none any more. */
export const rewriteEvidence: Operation = async (worker) => {
  const finding = worker.state.findings.pick(worker.prng);
  if (!finding) return false;
  const evidence = worker.prng.chance(0.2) ? null : values.evidence(worker.prng);
  await worker.session.update(
    'findings',
    'evidence = $3, last_seen_at = $4, updated_at = $4 WHERE organization_id = $1 AND id = $2',
    [finding.organization, finding.id, evidence, timestamp(worker.clock.tick())],
  );
  return 'commit';
};

/** Something old is seen again; now and then the update writes what was there before. */
export const touchOldFinding: Operation = async (worker) => {
  const finding = worker.state.findings.pickOld(worker.prng);
  if (!finding) return false;
  const key = [finding.organization, finding.id];
  const where = 'WHERE organization_id = $1 AND id = $2';
  if (worker.prng.chance(0.2)) {
    await worker.session.update('findings', `title = title ${where}`, key);
  } else {
    await worker.session.update('findings', `last_seen_at = $3, exposure = $4 ${where}`, [
      ...key,
      timestamp(worker.clock.tick()),
      values.exposure(worker.prng, worker.hostile),
    ]);
  }
  return 'commit';
};

/** One statement over several findings of one organization. */
export const triageBatch: Operation = async (worker) => {
  const { prng, session, state } = worker;
  const first = state.findings.pick(prng);
  if (!first) return false;
  const batch = state.findings
    .pickSome(prng, 60)
    .filter(({ organization }) => organization === first.organization);
  await session.update(
    'findings',
    `severity = $3, due_on = $4, updated_at = $5 WHERE organization_id = $1 AND id = ANY ($2)`,
    [
      first.organization,
      [first, ...batch].map(({ id }) => id),
      prng.pick(severities),
      prng.chance(0.5) ? timestamp(worker.clock.now + 7 * microsPerDay).slice(0, 10) : null,
      timestamp(worker.clock.tick()),
    ],
  );
  await audit(worker, first.organization, 'finding.batch_triaged');
  return 'commit';
};

/** The same row changes several times before the commit. */
export const editRepeatedly: Operation = async (worker) => {
  const { prng, session } = worker;
  const connection = worker.state.connection(prng);
  const finding = prng.chance(0.5)
    ? (await insertFindings(worker, connection, [], 1))[0]!
    : worker.state.findings.pick(prng);
  if (!finding) return false;
  const key = [finding.organization, finding.id];
  const where = 'WHERE organization_id = $1 AND id = $2';
  for (let step = prng.integer(1, 4); step > 0; step--) {
    await session.update('findings', `risk_score = $3, updated_at = $4 ${where}`, [
      ...key,
      values.riskScore(prng, worker.hostile),
      timestamp(worker.clock.tick()),
    ]);
  }
  await session.update('findings', `title = $3, detail = NULL ${where}`, [...key, values.phrase(prng, 5)]);
  return 'commit';
};

/** A key that comes and goes within one transaction; every third time it comes back with other content. */
export const insertAndDelete: Operation = async (worker) => {
  const { prng, session, state } = worker;
  const connection = state.connection(prng);
  const row = findingRow(draw(worker), connection.organization, connection.id);
  await session.insert('findings', [row]);
  const key = { organization: connection.organization, id: row.id as string, status: 'open' };
  await session.delete('findings', 'organization_id = $1 AND id = $2', [key.organization, key.id]);
  if (prng.chance(1 / 3)) {
    await session.insert('findings', [
      { ...findingRow(draw(worker), connection.organization, connection.id), id: key.id },
    ]);
    session.afterCommit(() => state.findings.add(key));
  }
  return 'commit';
};

/** Deletes a few findings, together with what was sent about them. */
export const deleteFindings: Operation = async (worker) => {
  const { prng, session, state } = worker;
  const doomed = state.findings.pickSome(prng, prng.integer(1, 4));
  if (doomed.length === 0) return false;
  for (const finding of doomed) {
    const key = [finding.organization, finding.id];
    await session.delete('workflow_deliveries', 'organization_id = $1 AND finding_id = $2', key);
    await session.delete('findings', 'organization_id = $1 AND id = $2', key);
    session.afterCommit(() => state.findings.remove(finding));
  }
  await audit(worker, doomed[0]!.organization, 'finding.deleted', doomed[0]!.id);
  return 'commit';
};
