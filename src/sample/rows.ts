/** One maker per table: a row as the application would insert it, drawn from the PRNG. Cells are query parameters. */
import { day, microsPerDay, microsPerSecond, timestamp } from './clock.ts';
import { githubPayload, providerPayload } from './payloads.ts';
import type { Prng } from './prng.ts';
import * as values from './values.ts';

export type Cell = string | number | boolean | null | Buffer | readonly (string | number)[];
/** Keyed by column. Rows of one maker always have the same keys in the same order. */
export type Row = Record<string, Cell>;

export const tables = [
  'organizations',
  'integration_connections',
  'findings',
  'events',
  'rule_runs',
  'connector_sync_runs',
  'workflow_deliveries',
  'audit_log',
] as const;
export type Table = (typeof tables)[number];

export interface Draw {
  prng: Prng;
  /** Microseconds since 1970. */
  now: number;
  /** Also draw NaN, infinities and other values that few systems hold. */
  hostile: boolean;
}

export interface Connection {
  organization: string;
  id: string;
  provider: string;
}

export const severities = ['info', 'low', 'medium', 'high', 'critical'] as const;
export const frameworks = ['soc2', 'iso27001', 'pci_dss', 'hipaa', 'cis'] as const;
const channels = ['email', 'slack', 'teams', 'jira', 'linear', 'pagerduty', 'webhook'] as const;
const scopes =
  'read:user repo admin:org drive.readonly drive gmail.modify users:read chat:write iam.full'.split(' ');
/** Grants of these come before most serious findings; the analysts' notebooks look for that. */
const riskyScopes = new Set(['admin:org', 'drive', 'gmail.modify', 'iam.full']);
export const rules = [
  'oauth.scope_escalation',
  'oauth.dormant_grant',
  'github.secret_exposed',
  'github.branch_unprotected',
  'okta.impossible_travel',
  'okta.mfa_disabled',
  'aws.root_login',
  'aws.public_bucket',
  'slack.external_share',
  'platform.connector_stale',
  'platform.delivery_failing',
] as const;

export function organizationRow({ prng, now }: Draw, index: number): Row {
  const slug = `org-${String(index + 1).padStart(4, '0')}`;
  return {
    id: prng.uuid(),
    name: `${values.phrase(prng, 2)} ${index + 1}`,
    slug,
    plan: index === 0 ? 'enterprise' : prng.pick(['trial', 'team', 'business', 'enterprise']),
    data_retention_days: prng.pick([1, 30, 90, 365, 2555]),
    is_active: prng.chance(0.95),
    contract_start: prng.chance(0.8) ? day(now - prng.integer(1, 2000) * microsPerDay) : null,
    annual_spend: prng.chance(0.8) ? `${prng.integer(0, 999999999)}.${prng.integer(10, 99)}` : null,
    security_contact_email: values.email(prng),
    contact_phone: `+1-555-01${prng.integer(10, 99)}`,
    email_domains: [`${slug}.example.com`, `${slug}.example.net`].slice(0, prng.integer(0, 2)),
    frameworks: prng.some(frameworks, prng.integer(0, 3)),
    settings: JSON.stringify({
      theme: values.phrase(prng, 1),
      alerts: { digest: prng.chance(0.5), at: [8, 17] },
    }),
    created_at: timestamp(now + index),
    updated_at: timestamp(now + index),
  };
}

export function connectionRow({ prng, now }: Draw, organization: string): Row {
  return {
    organization_id: organization,
    id: prng.uuid(),
    provider: prng.chance(0.5) ? 'github' : prng.pick(['okta', 'google_workspace', 'slack', 'aws', 'syslog']),
    display_name: values.phrase(prng, 3),
    external_account_id: String(BigInt(prng.uint32()) * 2147483647n),
    status: prng.pick(['active', 'active', 'active', 'degraded', 'pending']),
    enabled: prng.chance(0.9),
    granted_scopes: prng.some(scopes, prng.integer(0, 5)),
    installed_by_email: values.email(prng),
    token_key_version: 1,
    credential_fingerprint: prng.bytes(32),
    poll_interval: prng.pick(['15 minutes', '1 hour', '1 day', '90 seconds']),
    config: prng.chance(0.7)
      ? JSON.stringify({ tenant: prng.uuid(), pageSize: prng.integer(10, 500) })
      : null,
    last_sync_at: null,
    last_error: null,
    created_at: timestamp(now),
    updated_at: timestamp(now),
  };
}

/** A finding, two in five with evidence of several KiB. `scopesSeen` are the OAuth scopes of the events behind it. */
export function findingRow(
  draw: Draw,
  organization: string,
  connection: string | null,
  eventIds: readonly string[] = [],
  scopesSeen: readonly string[] = [],
): Row {
  const { prng, now, hostile } = draw;
  const risky = scopesSeen.some((scope) => riskyScopes.has(scope));
  return {
    organization_id: organization,
    id: prng.uuid(),
    connection_id: connection,
    rule_id: risky ? rules[0] : prng.pick(rules),
    title: values.phrase(prng, prng.integer(3, 9)),
    severity: severities[prng.integer(risky ? 2 : 0, risky ? 4 : 3)]!,
    status: 'open',
    risk_score: values.riskScore(prng, hostile),
    exposure: values.exposure(prng, hostile),
    confidence: values.confidence(prng, hostile),
    assignee_email: prng.chance(0.5) ? values.email(prng) : null,
    source_ip: prng.chance(0.6) ? values.address(prng) : null,
    oauth_scopes: scopesSeen.length > 0 ? scopesSeen : null,
    frameworks: prng.some(frameworks, prng.integer(0, 2)),
    ports: prng.chance(0.3) ? [prng.integer(1, 65535), 443] : null,
    event_ids: eventIds,
    evidence: prng.chance(0.4) ? values.evidence(prng) : prng.pick(['', null, values.phrase(prng, 12)]),
    detail: prng.chance(0.9)
      ? JSON.stringify({ hops: prng.integer(1, 9), why: [values.phrase(prng, 4), null] })
      : null,
    fingerprint: prng.chance(0.5) ? prng.bytes(20) : null,
    reopened_count: 0,
    sla: prng.chance(0.5) ? values.interval(prng) : null,
    due_on: prng.chance(0.5) ? day(now + prng.integer(1, 60) * microsPerDay) : null,
    suppressed_until: null,
    first_seen_at: timestamp(now - Math.round(prng.exponential(3600 * microsPerSecond))),
    last_seen_at: timestamp(now),
    resolved_at: null,
    created_at: timestamp(now),
    updated_at: timestamp(now),
  };
}

/** Microseconds by which one event in fifty arrives late, at most. */
export const latestArrival = 2 * microsPerDay;

/** A vendor event that occurred shortly before `now`, or up to two days before; `occurredAt` fixes it. */
export function eventRow({ prng, now }: Draw, connection: Connection, occurredAt?: number): Row {
  const delay = prng.chance(0.02) ? prng.unit() * latestArrival : prng.exponential(20 * microsPerSecond);
  const occurred = occurredAt ?? now - Math.round(Math.min(delay, latestArrival));
  const granted = prng.chance(0.3) ? prng.some(scopes, prng.integer(1, 3)) : null;
  const payload =
    connection.provider === 'github'
      ? githubPayload(prng, occurred)
      : providerPayload(prng, connection.provider, granted ?? []);
  return {
    organization_id: connection.organization,
    id: prng.uuid(),
    occurred_at: timestamp(occurred),
    received_at: timestamp(now),
    connection_id: connection.id,
    provider: connection.provider,
    event_type: payload.eventType,
    action: payload.action,
    actor_login: prng.chance(0.9) ? `user-${prng.integer(1, 400)}` : null,
    actor_email: prng.chance(0.6) ? values.email(prng) : null,
    actor_ip: prng.chance(0.8) ? values.address(prng) : null,
    is_bot: prng.chance(0.9) ? prng.chance(0.2) : null,
    oauth_scopes: granted,
    threat_tags: prng.chance(0.1) ? ['malicious_ip', values.phrase(prng, 1)] : [],
    payload_bytes: Buffer.byteLength(payload.json),
    latency_ms: (now - occurred) / 1000,
    payload: payload.json,
  };
}

export function ruleRunRow({ prng, now }: Draw, organization: string, findings: readonly string[]): Row {
  const failed = prng.integer(0, 20);
  const passed = prng.integer(40, 120);
  const scored = prng.chance(0.4);
  const outcome = prng.pick(['succeeded', 'succeeded', 'succeeded', 'partial', 'failed']);
  return {
    organization_id: organization,
    rule_id: prng.pick(rules),
    rule_version: prng.integer(1, 12),
    status: outcome,
    framework: scored ? prng.pick(frameworks) : null,
    events_evaluated: Math.round(prng.logNormal(7, 2)),
    findings_opened: findings.length,
    finding_ids: findings,
    controls_passed: scored ? passed : null,
    controls_failed: scored ? failed : null,
    compliance_score: scored ? ((100 * passed) / (passed + failed)).toFixed(3) : null,
    duration: values.interval(prng),
    error: outcome === 'failed' ? values.phrase(prng, 6) : null,
    started_at: timestamp(now - prng.integer(1000, 5_000_000)),
    finished_at: timestamp(now),
  };
}

export function syncRunRow({ prng, now, hostile }: Draw, connection: Connection, events: number): Row {
  const failed = prng.chance(0.08);
  const clock = timestamp(now - prng.integer(0, 3600) * microsPerSecond).slice(0, -1);
  return {
    organization_id: connection.organization,
    connection_id: connection.id,
    status: failed ? 'failed' : prng.chance(0.05) ? 'partial' : 'succeeded',
    attempt: failed ? prng.integer(1, 5) : 1,
    events_ingested: events,
    bytes_read: String(BigInt(prng.uint32()) * (prng.chance(0.02) ? 1_000_000_007n : 1n)),
    rate_limit_remaining: prng.chance(0.9) ? prng.integer(0, 5000) : null,
    http_statuses: failed ? [200, 429, 503] : [200],
    page_cursor: prng.chance(0.7) ? prng.bytes(18).toString('base64url') : '',
    vendor_clock:
      hostile && prng.chance(0.01) ? prng.pick(['infinity', '-infinity', '0044-03-15 12:00:00 BC']) : clock,
    lag: values.interval(prng),
    error: failed ? values.phrase(prng, 5) : null,
    started_at: timestamp(now - prng.integer(10_000, 60_000_000)),
    finished_at: timestamp(now),
  };
}

export function deliveryRow({ prng, now }: Draw, organization: string, finding: string | null): Row {
  return {
    organization_id: organization,
    id: prng.uuid(),
    finding_id: finding,
    channel: prng.pick(channels),
    recipient: prng.chance(0.9) ? values.email(prng) : null,
    status: 'pending',
    attempts: 0,
    last_status_code: null,
    last_error: null,
    latency_ms: null,
    request_body: JSON.stringify({
      finding,
      text: values.phrase(prng, 10),
      blocks: [{ type: 'section', n: 1e21 }],
    }),
    response_body: null,
    next_attempt_at: timestamp(now + 5 * microsPerSecond),
    delivered_at: null,
    created_at: timestamp(now),
    updated_at: timestamp(now),
  };
}

export function auditRow(
  { prng, now }: Draw,
  organization: string,
  eventType: string,
  target: string | null,
): Row {
  return {
    organization_id: organization,
    schema_version: 1,
    event_type: eventType,
    outcome: prng.chance(0.95) ? 'allowed' : prng.pick(['denied', 'error']),
    session_id: prng.chance(0.8) ? prng.uuid() : null,
    grant_id: prng.chance(0.3) ? prng.uuid() : null,
    request_id: prng.uuid(),
    actor_email: prng.chance(0.8) ? values.email(prng) : null,
    actor_ip: prng.chance(0.8) ? values.address(prng) : null,
    target,
    detail: prng.chance(0.5)
      ? JSON.stringify({ via: prng.pick(['ui', 'api', 'scheduler']), note: values.phrase(prng, 3) })
      : null,
    occurred_at: timestamp(now),
  };
}
