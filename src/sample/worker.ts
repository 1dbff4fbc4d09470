/** What an operation works with, and the words that operations share. */
import type { SampleClock } from './clock.ts';
import type { Prng } from './prng.ts';
import { auditRow, type Connection, type Draw, eventRow, findingRow, type Row } from './rows.ts';
import type { Session } from './session.ts';
import type { FindingKey, WorkerState } from './state.ts';

export interface Worker {
  /** 0 for the first connection, which alone runs the operations that touch every worker's rows. */
  index: number;
  session: Session;
  prng: Prng;
  clock: SampleClock;
  state: WorkerState;
  hostile: boolean;
}

/**
 * One transaction of the application. The caller has begun it and commits it unless the operation asks for a
 * rollback. False: there was nothing to work on, and nothing was done.
 */
export type Operation = (worker: Worker) => Promise<'commit' | 'rollback' | false>;

export function draw({ prng, clock, hostile }: Worker): Draw {
  return { prng, now: clock.tick(), hostile };
}

export async function insertEvents(worker: Worker, connection: Connection, count: number): Promise<Row[]> {
  const rows = Array.from({ length: count }, () => eventRow(draw(worker), connection));
  await worker.session.insert('events', rows);
  // A few of them are enough to come back to later.
  for (const row of rows.slice(0, 3)) {
    const key = {
      organization: connection.organization,
      id: row.id as string,
      occurredAt: row.occurred_at as string,
    };
    worker.session.afterCommit(() => worker.state.events.add(key));
  }
  return rows;
}

/** Opens findings about some of the events. */
export async function insertFindings(
  worker: Worker,
  connection: Connection,
  events: readonly Row[],
  count: number,
): Promise<FindingKey[]> {
  const rows = Array.from({ length: count }, () => {
    const behind = events.length === 0 ? [] : [worker.prng.pick(events), worker.prng.pick(events)];
    const ids = behind.map((event) => event.id as string);
    const scopes = behind.flatMap((event) => (event.oauth_scopes as string[] | null) ?? []);
    return findingRow(draw(worker), connection.organization, connection.id, ids, [...new Set(scopes)]);
  });
  await worker.session.insert('findings', rows);
  return rows.map((row) => {
    const key = { organization: row.organization_id as string, id: row.id as string, status: 'open' };
    worker.session.afterCommit(() => worker.state.findings.add(key));
    return key;
  });
}

export async function audit(
  worker: Worker,
  organization: string,
  eventType: string,
  target: string | null = null,
) {
  await worker.session.insert('audit_log', [auditRow(draw(worker), organization, eventType, target)]);
}
