/** The rows a sample database starts with: tenants, connections and some history. */
import type { Client } from 'pg';
import { day, defaultStart, microsPerDay, SampleClock, timestamp } from './clock.ts';
import { Prng, skewed } from './prng.ts';
import {
  auditRow,
  type Connection,
  connectionRow,
  deliveryRow,
  eventRow,
  findingRow,
  latestArrival,
  organizationRow,
  type Row,
  ruleRunRow,
  syncRunRow,
} from './rows.ts';
import { Session, type TableCounts } from './session.ts';

export interface SeedOptions {
  /** Default 5. The first is by far the largest. */
  organizations?: number;
  seed: number | string;
  /** End of the history; default clock.ts' defaultStart. */
  end?: Date;
  /** Days of history, default 30. Every day gets a partition. */
  historyDays?: number;
  /** Findings in that history, over all organizations; default 40 per organization. Events: three times as many. */
  findings?: number;
}

/**
 * Inserts the base rows in one transaction and returns what it inserted per table; does nothing (and returns an
 * empty object) when there are organizations already. Leaves the session's time zone at UTC.
 */
export async function seedSample(client: Client, options: SeedOptions): Promise<TableCounts> {
  await client.query(`SET TIME ZONE 'UTC'`);
  const existing = await client.query('SELECT 1 FROM app.organizations LIMIT 1');
  if (existing.rowCount !== 0) return {};
  const session = new Session(client);
  const prng = new Prng(`${options.seed}/seed`);
  const end = (options.end ?? defaultStart).getTime() * 1000;
  const days = options.historyDays ?? 30;
  const begin = end - days * microsPerDay;
  const organizations = options.organizations ?? 5;
  await session.begin();
  try {
    await client.query('SELECT app.ensure_event_partitions($1, $2)', [
      day(begin - latestArrival),
      days + 2 + latestArrival / microsPerDay,
    ]);
    const tenants = Array.from({ length: organizations }, (_, index) =>
      organizationRow({ prng, now: begin - microsPerDay, hostile: false }, index),
    );
    await session.insert('organizations', tenants);
    const connections = await seedConnections(session, prng, tenants, begin);
    await seedHistory(session, prng, connections, {
      begin,
      end,
      findings: options.findings ?? organizations * 40,
    });
    return await session.commit();
  } catch (error) {
    await session.rollback();
    throw error;
  }
}

/** Up to six for the largest organization, at least one for each. */
async function seedConnections(
  session: Session,
  prng: Prng,
  tenants: Row[],
  now: number,
): Promise<Connection[]> {
  const rows = tenants.flatMap((tenant, index) =>
    Array.from({ length: 1 + Math.floor(5 / (index + 1)) }, (_, n) =>
      connectionRow({ prng, now: now + index * 1000 + n, hostile: false }, tenant.id as string),
    ),
  );
  await session.insert('integration_connections', rows);
  return rows.map((row) => ({
    organization: row.organization_id as string,
    id: row.id as string,
    provider: row.provider as string,
  }));
}

/** Events, then findings about them of which most are resolved, runs that score better and better, deliveries. */
async function seedHistory(
  session: Session,
  prng: Prng,
  connections: Connection[],
  { begin, end, findings }: { begin: number; end: number; findings: number },
): Promise<void> {
  const choice = skewed(connections.length);
  const clock = new SampleClock(prng, {
    start: new Date(begin / 1000),
    meanStep: (end - begin) / (findings + 1),
  });
  const batch: Record<'events' | 'findings' | 'runs' | 'syncs' | 'deliveries' | 'audit', Row[]> = {
    events: [],
    findings: [],
    runs: [],
    syncs: [],
    deliveries: [],
    audit: [],
  };
  const flush = async () => {
    await session.insert('connector_sync_runs', batch.syncs.splice(0));
    await session.insert('events', batch.events.splice(0));
    await session.insert('findings', batch.findings.splice(0));
    await session.insert('rule_runs', batch.runs.splice(0));
    await session.insert('workflow_deliveries', batch.deliveries.splice(0));
    await session.insert('audit_log', batch.audit.splice(0));
  };
  for (let n = 0; n < findings; n++) {
    const draw = { prng, now: Math.min(clock.tick(), end), hostile: false };
    const connection = connections[choice.draw(prng)]!;
    const events = Array.from({ length: 3 }, () => eventRow(draw, connection));
    const scopes = [...new Set(events.flatMap((event) => (event.oauth_scopes as string[] | null) ?? []))];
    const ids = events.map((event) => event.id as string);
    const finding = findingRow(draw, connection.organization, connection.id, ids, scopes);
    // Median time to resolve: e^11 seconds, about 17 hours.
    const resolved = draw.now + Math.round(prng.logNormal(11, 1.2) * 1_000_000);
    if (prng.chance(0.8) && resolved < end) {
      finding.status = 'resolved';
      finding.resolved_at = timestamp(resolved);
      finding.updated_at = timestamp(resolved);
    }
    batch.syncs.push(syncRunRow(draw, connection, events.length));
    batch.events.push(...events);
    batch.findings.push(finding);
    const run = ruleRunRow(draw, connection.organization, [finding.id as string]);
    if (run.compliance_score !== null) run.compliance_score = trend(prng, (draw.now - begin) / (end - begin));
    batch.runs.push(run);
    if (prng.chance(0.5)) {
      batch.deliveries.push(deliveryRow(draw, connection.organization, finding.id as string));
    }
    batch.audit.push(auditRow(draw, connection.organization, 'finding.opened', finding.id as string));
    if (batch.events.length >= 600) await flush();
  }
  await flush();
}

function trend(prng: Prng, progress: number): string {
  return (70 + 20 * progress + 5 * prng.unit()).toFixed(3);
}
