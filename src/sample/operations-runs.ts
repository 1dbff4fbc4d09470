/** What the product's own workers do: syncs, rule runs, notifications, and the housekeeping around them. */
import { microsPerSecond, timestamp } from './clock.ts';
import { connectionRow, deliveryRow, latestArrival, type Row, ruleRunRow, syncRunRow } from './rows.ts';
import * as values from './values.ts';
import { audit, draw, insertEvents, insertFindings, type Operation, type Worker } from './worker.ts';

/** A connector fetched a page: run, events, sometimes findings, the connection's freshness, the audit row. */
export const syncConnection: Operation = async (worker) => {
  const { prng, session, state } = worker;
  const connection = state.connection(prng);
  const count = Math.min(60, 1 + Math.round(prng.exponential(12)));
  await session.insert('connector_sync_runs', [syncRunRow(draw(worker), connection, count)]);
  const events = await insertEvents(worker, connection, count);
  if (prng.chance(0.4)) await insertFindings(worker, connection, events, prng.integer(1, 3));
  await session.update(
    'integration_connections',
    'last_sync_at = $3, last_error = $4, updated_at = $3 WHERE organization_id = $1 AND id = $2',
    [
      connection.organization,
      connection.id,
      timestamp(worker.clock.tick()),
      prng.chance(0.05) ? values.phrase(prng, 4) : null,
    ],
  );
  await audit(worker, connection.organization, 'connection.synced', connection.id);
  return 'commit';
};

/** A backlog arrives at once: one transaction of hundreds of events. */
export const burst: Operation = async (worker) => {
  const connection = worker.state.connection(worker.prng);
  const count = worker.prng.integer(200, 800);
  await worker.session.insert('connector_sync_runs', [syncRunRow(draw(worker), connection, count)]);
  await insertEvents(worker, connection, count);
  return 'commit';
};

/** A rule looked at an organization and opened none or a few findings. */
export const runRule: Operation = async (worker) => {
  const { prng, session, state } = worker;
  const connection = state.connection(prng);
  const findings = await insertFindings(worker, connection, [], prng.chance(0.25) ? prng.integer(1, 3) : 0);
  const ids = findings.map(({ id }) => id);
  await session.insert('rule_runs', [ruleRunRow(draw(worker), connection.organization, ids)]);
  return 'commit';
};

/** Queues notifications about a finding. */
export const queueDelivery: Operation = async (worker) => {
  const { prng, session, state } = worker;
  const finding = state.findings.pick(prng);
  if (!finding) return false;
  await session.insert('workflow_deliveries', deliveries(worker, finding.organization, finding.id));
  return 'commit';
};

function deliveries(worker: Worker, organization: string, finding: string | null): Row[] {
  const { prng, session, state } = worker;
  return Array.from({ length: prng.integer(1, 3) }, () => {
    const row = deliveryRow(draw(worker), organization, finding);
    session.afterCommit(() => state.deliveries.add({ organization, id: row.id as string, attempts: 0 }));
    return row;
  });
}

/** Tries a queued notification: delivered, retried later with backoff, or given up after six attempts. */
export const attemptDelivery: Operation = async (worker) => {
  const { prng, session, state } = worker;
  const delivery = state.deliveries.pick(prng);
  if (!delivery) return false;
  const attempts = delivery.attempts + 1;
  const delivered = prng.chance(0.6);
  const status = delivered ? 'delivered' : attempts >= 6 ? 'dead' : 'failed';
  const now = worker.clock.tick();
  await session.update(
    'workflow_deliveries',
    `status = $3, attempts = $4, last_status_code = $5, last_error = $6, latency_ms = $7, response_body = $8,
     next_attempt_at = $9, delivered_at = $10, updated_at = $11 WHERE organization_id = $1 AND id = $2`,
    [
      delivery.organization,
      delivery.id,
      status,
      attempts,
      delivered ? 200 : prng.pick([429, 500, 503, null]),
      delivered ? null : values.phrase(prng, 3),
      prng.exponential(300),
      // Some receivers answer with whole error pages.
      delivered ? '' : prng.chance(0.2) ? values.evidence(prng) : values.phrase(prng, 8),
      status === 'failed' ? timestamp(now + 2 ** attempts * microsPerSecond) : null,
      delivered ? timestamp(now) : null,
      timestamp(now),
    ],
  );
  session.afterCommit(() => {
    delivery.attempts = attempts;
    if (status !== 'failed') state.deliveries.remove(delivery);
  });
  return 'commit';
};

/** People read and export things, which only the audit log notices. */
export const browse: Operation = async (worker) => {
  const organization = worker.state.organization(worker.prng);
  for (let n = worker.prng.integer(1, 4); n > 0; n--) await audit(worker, organization, 'report.viewed');
  return 'commit';
};

/** An old event is enriched; its payload, often out of line, stays as it is. */
export const enrichOldEvent: Operation = async (worker) => {
  const event = worker.state.events.pickOld(worker.prng);
  if (!event) return false;
  await worker.session.update(
    'events',
    `threat_tags = array_append(threat_tags, $4), is_bot = $5
     WHERE organization_id = $1 AND id = $2 AND occurred_at = $3`,
    [event.organization, event.id, event.occurredAt, values.phrase(worker.prng, 1), worker.prng.chance(0.5)],
  );
  return 'commit';
};

/** The vendor corrected an event's time: a key change that may carry the row into another partition. */
export const correctEventTime: Operation = async (worker) => {
  const event = worker.state.events.pick(worker.prng);
  if (!event) return false;
  const corrected = timestamp(worker.clock.tick() - Math.floor(worker.prng.unit() * latestArrival));
  await worker.session.update(
    'events',
    'occurred_at = $4 WHERE organization_id = $1 AND id = $2 AND occurred_at = $3',
    [event.organization, event.id, event.occurredAt, corrected],
  );
  worker.session.afterCommit(() => {
    event.occurredAt = corrected;
  });
  return 'commit';
};

/** Erasure on request: single events go. */
export const deleteEvents: Operation = async (worker) => {
  const doomed = worker.state.events.pickSome(worker.prng, worker.prng.integer(1, 5));
  for (const event of doomed) {
    await worker.session.delete('events', 'organization_id = $1 AND id = $2 AND occurred_at = $3', [
      event.organization,
      event.id,
      event.occurredAt,
    ]);
    worker.session.afterCommit(() => worker.state.events.remove(event));
  }
  return doomed.length > 0 ? 'commit' : false;
};

/** An administrator changes the organization. */
export const changeSettings: Operation = async (worker) => {
  const { prng } = worker;
  const organization = worker.state.organization(prng);
  const settings = JSON.stringify({
    theme: values.phrase(prng, 1),
    seats: prng.uint32(),
    nested: { a: [[]] },
  });
  await worker.session.update(
    'organizations',
    'settings = $2, annual_spend = $3, data_retention_days = $4, updated_at = $5 WHERE id = $1',
    [
      organization,
      settings,
      prng.chance(0.1) ? null : (prng.uint32() / 100).toFixed(2),
      prng.pick([30, 90, 365]),
      timestamp(worker.clock.tick()),
    ],
  );
  await audit(worker, organization, 'organization.changed', organization);
  return 'commit';
};

/** A credential is renewed. */
export const rotateCredential: Operation = async (worker) => {
  const connection = worker.state.connection(worker.prng);
  await worker.session.update(
    'integration_connections',
    `token_key_version = token_key_version % 32767 + 1, credential_fingerprint = $3, updated_at = $4
     WHERE organization_id = $1 AND id = $2`,
    [connection.organization, connection.id, worker.prng.bytes(32), timestamp(worker.clock.tick())],
  );
  await audit(worker, connection.organization, 'connection.credential_rotated', connection.id);
  return 'commit';
};

/** A connection is tried out … */
export const startTrial: Operation = async (worker) => {
  const { prng, session, state } = worker;
  const organization = state.organization(prng);
  const row = connectionRow(draw(worker), organization);
  const connection = { organization, id: row.id as string, provider: row.provider as string };
  await session.insert('integration_connections', [row]);
  const runs = Array.from({ length: prng.integer(1, 4) }, () => syncRunRow(draw(worker), connection, 0));
  await session.insert('connector_sync_runs', runs);
  session.afterCommit(() => state.trials.add(connection));
  return 'commit';
};

/** … and removed; the foreign key's cascade deletes its sync runs. */
export const endTrial: Operation = async (worker) => {
  const trial = worker.state.trials.pick(worker.prng);
  if (!trial) return false;
  const key = [trial.organization, trial.id];
  await worker.session.delete('integration_connections', 'organization_id = $1 AND id = $2', key);
  await audit(worker, trial.organization, 'connection.removed', trial.id);
  worker.session.afterCommit(() => worker.state.trials.remove(trial));
  return 'commit';
};

/** Part of the work fails and is taken back; the rest commits. */
export const savepoint: Operation = async (worker) => {
  const { prng, session, state } = worker;
  const connection = state.connection(prng);
  const [kept] = await insertFindings(worker, connection, [], 1);
  await session.savepoint();
  await insertEvents(worker, connection, prng.integer(1, 10));
  await session.delete('findings', 'organization_id = $1 AND id = $2', [connection.organization, kept!.id]);
  await session.rollbackToSavepoint();
  await session.insert('workflow_deliveries', deliveries(worker, connection.organization, kept!.id));
  return 'commit';
};

/** The whole transaction fails. */
export const rollback: Operation = async (worker) => {
  const connection = worker.state.connection(worker.prng);
  await insertEvents(worker, connection, worker.prng.integer(1, 20));
  await worker.session.update(
    'integration_connections',
    'enabled = NOT enabled WHERE organization_id = $1 AND id = $2',
    [connection.organization, connection.id],
  );
  return 'rollback';
};

/**
 * A log table is emptied and written again within the same transaction; sometimes its keys start over, so that old
 * key values come back. Only the first worker does it: it takes rows from under all of them.
 */
export const truncateLog: Operation = async (worker) => {
  const { prng, session, state } = worker;
  if (worker.index !== 0) return false;
  const connection = state.connection(prng);
  if (prng.chance(0.5)) {
    await session.truncate('connector_sync_runs', prng.chance(0.5));
    await session.insert('connector_sync_runs', [syncRunRow(draw(worker), connection, 0)]);
  } else {
    await session.truncate('workflow_deliveries', false);
    session.afterCommit(() => state.deliveries.clear());
    await session.insert('workflow_deliveries', deliveries(worker, connection.organization, null));
  }
  await audit(worker, connection.organization, 'log.emptied');
  return 'commit';
};
