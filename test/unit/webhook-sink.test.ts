/** The webhook sink's own decisions: options, addresses, answers, findings. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { addressAllowed } from '../../connectors/sinks/webhook/addresses.ts';
import { failureOf, networkFailure, retryAfterOf } from '../../connectors/sinks/webhook/answers.ts';
import { redirectTarget } from '../../connectors/sinks/webhook/endpoint.ts';
import { encodeFinding } from '../../connectors/sinks/webhook/finding-event.ts';
import { attributeValue, kindOf } from '../../connectors/sinks/webhook/finding-values.ts';
import { laneOf } from '../../connectors/sinks/webhook/lane.ts';
import { webhookOptionsFrom } from '../../connectors/sinks/webhook/options.ts';
import type { TidemarkError } from '../../src/connector/failure.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import type { OptionValues, RowEvent } from '../../src/connector/sink.ts';
import { at, event, newSecret, optionValues, shapeOf } from '../integration/webhook-harness.ts';

const valid = { url: 'https://siem.example.com/in?token=planted', secret: newSecret() };

function refusal(own: OptionValues): TidemarkError {
  try {
    webhookOptionsFrom(optionValues({ ...valid, ...own }));
  } catch (error) {
    return error as TidemarkError;
  }
  throw new Error('the options were accepted');
}

test.each<[string, OptionValues]>([
  ['url', { url: 'planted' }],
  ['url', { url: 'ftp://planted.example.com/' }],
  ['url', { url: 'https://user:planted@example.com/' }],
  ['secret', { secret: 'planted' }],
  ['secret', { secret: `${newSecret()} whsec_planted!` }],
  ['secret', { secret: null }],
  ['headers', { headers: 'planted' }],
  ['headers', { headers: 'X-A: planted\u00e9' }],
  ['headers', { headers: 'X-A: 1\nx-a: planted' }],
  ['headers', { headers: 'Webhook-Id: planted' }],
  ['headers', { headers: 'Content-Length: 1' }],
  ['lanes', { lanes: 0 }],
  ['batch.max.events', { 'batch.max.events': 0 }],
  ['batch.max.bytes', { 'batch.max.bytes': 10 }],
  ['timeout', { timeout: 0 }],
  ['finding.columns', { 'finding.columns': ['planted'] }],
  ['finding.columns', { 'finding.columns': ['class_uid=planted'] }],
  ['finding.columns', { 'finding.columns': ['__proto__.x=planted'] }],
  ['finding.columns', { 'finding.columns': ['finding_info.uid=a', 'finding_info.uid.x=planted'] }],
  ['finding.severities', { 'finding.severities': ['planted=7'] }],
])('%s that does not fit is TM101, without the value', (key, own) => {
  const error = refusal(own);
  expect(error.code).toBe('TM101');
  expect(error.message).toMatch(new RegExp(`^${key.replaceAll('.', '\\.')}: `));
  expect(error.message + error.remedy).not.toContain('planted');
});

test('headers are read a line each, and content-type is the operator’s to change', () => {
  const { endpoint } = webhookOptionsFrom(
    optionValues({
      ...valid,
      headers: 'Authorization: Splunk a:b\r\n\ncontent-type:  application/cloudevents+json ',
    }),
  );
  expect(endpoint.headers).toEqual({
    authorization: 'Splunk a:b',
    'content-type': 'application/cloudevents+json',
  });
});

test('addresses: link-local never, private ones where the operator allows them, public ones always', () => {
  const both = ['93.184.216.34', '2606:2800:220:1::1'];
  const inside = [
    '127.0.0.1',
    '10.1.2.3',
    '172.16.0.1',
    '192.168.1.1',
    '100.64.0.1',
    '::1',
    'fd12::1',
    '::ffff:10.0.0.1',
    '64:ff9b::a00:1',
    '198.18.0.1',
    '2002:7f00:1::',
  ];
  const nowhere = [
    '169.254.169.254',
    '::ffff:169.254.169.254',
    'fe80::1',
    'fd00:ec2::254',
    '0.0.0.0',
    '::',
    '224.0.0.1',
    '255.255.255.255',
    'localhost',
    '',
  ];
  for (const address of both)
    expect([addressAllowed(address, true), addressAllowed(address, false)], address).toEqual([true, true]);
  for (const address of inside)
    expect([addressAllowed(address, true), addressAllowed(address, false)], address).toEqual([true, false]);
  for (const address of nowhere)
    expect([addressAllowed(address, true), addressAllowed(address, false)], address).toEqual([false, false]);
});

test('redirects stay on the host, and never leave TLS', () => {
  const from = new URL('https://a.example.com/in');
  const goes = (to: string, base = from, status = 307) => redirectTarget(status, to, base)?.href ?? null;
  expect(goes('/other?x=1')).toBe('https://a.example.com/other?x=1');
  expect(goes('https://a.example.com:443/x')).toBe('https://a.example.com/x');
  for (const to of [
    'https://b.example.com/',
    'http://a.example.com/',
    'https://a.example.com:8443/',
    'https://u:p@a.example.com/',
    '//b.example.com/',
    'http://[',
    'javascript:0',
  ]) {
    expect(goes(to), to).toBeNull();
  }
  expect(goes('https://a.example.com/in', new URL('http://a.example.com/in'))).toBe(
    'https://a.example.com/in',
  );
  expect(goes('https://a.example.com/in', new URL('http://a.example.com:8080/in'))).toBeNull();
  for (const status of [300, 303, 304, 305]) expect(goes('/x', from, status)).toBeNull();
});

test('Retry-After: seconds and all three forms of an HTTP date, never the past, never more than an hour', () => {
  const now = Date.UTC(2026, 10, 6, 8, 49, 0);
  expect(retryAfterOf('120', now)).toBe(120_000);
  expect(retryAfterOf('Fri, 06 Nov 2026 08:49:37 GMT', now)).toBe(37_000);
  expect(retryAfterOf('Friday, 06-Nov-26 08:49:37 GMT', now)).toBe(37_000);
  expect(retryAfterOf('Fri Nov  6 08:49:37 2026', now)).toBe(37_000);
  expect(retryAfterOf('999999999', now)).toBe(3_600_000);
  for (const text of ['0', '-1', 'soon', '', 'Fri, 06 Nov 2026 08:48:37 GMT', undefined]) {
    expect(retryAfterOf(text, now), text).toBeNull();
  }
});

test('every status is sorted once, and only codes of a network failure are repeated', () => {
  const code = (status: number) => failureOf({ status, retryAfterMs: null, durationMs: 1 }).code;
  expect([408, 409, 425, 429, 500, 502, 503, 504, 599].map(code)).toEqual(new Array(9).fill('TM401'));
  expect([300, 304, 401, 402, 403, 404, 405, 410, 415, 451].map(code)).toEqual(new Array(10).fill('TM402'));
  const nested = Object.assign(new Error('planted'), {
    code: 'UND_ERR_CONNECT',
    cause: new AggregateError([Object.assign(new Error('planted'), { code: 'ECONNREFUSED' })], 'planted'),
  });
  expect(networkFailure(nested)).toMatchObject({
    code: 'TM401',
    message: 'the endpoint does not answer: ECONNREFUSED',
  });
  const certificate = Object.assign(new Error('planted'), { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' });
  expect(networkFailure(certificate).code).toBe('TM402');
});

test('keys spread over the lanes, always alike', () => {
  const counts = new Array(8).fill(0);
  for (let n = 0; n < 8000; n += 1) counts[laneOf(JSON.stringify([`id-${n}`]), 8)] += 1;
  for (const count of counts) expect(count).toBeGreaterThan(700);
  expect(laneOf('["a"]', 8)).toBe(laneOf('["a"]', 8));
  expect(laneOf('', 8)).toBe(0);
});

/** The sample application's table as its migration writes it, so that the defaults are held to the real columns. */
function sampleFindings(): TableShape {
  const file = new URL('../../migrations/source/0002_findings_and_events.sql', import.meta.url);
  const [, body] = /CREATE TABLE app\.findings \(([\s\S]*?)\n\s+PRIMARY KEY/.exec(
    readFileSync(file, 'utf8'),
  )!;
  const names = [...body!.matchAll(/^ {2}(\w+) /gm)].map(([, name]) => name!);
  const shape = shapeOf('findings', names);
  const keyColumns = ['organization_id', 'id'].map((name) => names.indexOf(name));
  for (const [index, column] of shape.columns.entries()) column.key = keyColumns.includes(index);
  return { ...shape, keyColumns };
}

const findings = sampleFindings();
const row: Record<string, string | null | undefined> = {
  organization_id: 'org-1',
  id: 'f-1',
  rule_id: 'okta.mfa_disabled',
  title: 'MFA was switched off',
  severity: 'critical',
  status: 'open',
  risk_score: '87.50',
  exposure: 'NaN',
  evidence: undefined,
  suppressed_until: 'infinity',
  first_seen_at: '2026-11-28 10:31:37.123+00',
  created_at: '2026-11-28 10:31:37.123456+00',
  updated_at: '2026-11-28 10:31:37+00',
  oauth_scopes: '{a,b}',
};

function encoded(
  op: RowEvent['op'],
  changes: Record<string, string | null | undefined> = {},
  own: OptionValues = {},
) {
  const { finding } = webhookOptionsFrom(optionValues({ ...valid, shape: 'finding', ...own }));
  const missing: unknown[] = [];
  const encode = encodeFinding(finding, { sourceId: 'shop', onMissing: (...parts) => missing.push(parts) });
  const whole = { ...row, ...changes };
  const values = findings.columns.map(({ name, key }) => {
    if (op === 'd') return key ? whole[name] : undefined;
    return name in whole ? whole[name] : null;
  });
  const rowless = op === 't' || op === 's' || op === 'e';
  const change = event(op, 1, {
    key: op === 't' || op === 's' ? [] : ['org-1', 'f-1'],
    values: rowless ? [] : values,
    ...(op === 's' ? { since: at(0) } : {}),
  });
  return { json: JSON.parse(encode(change, findings)), missing };
}

test('the defaults make an OCSF 1.8 Detection Finding of app.findings, and lose nothing', () => {
  const { json, missing } = encoded('c');
  expect(missing).toEqual([]);
  expect(json).toMatchObject({
    activity_id: 1,
    activity_name: 'Create',
    category_uid: 2,
    class_uid: 2004,
    type_uid: 200_401,
    time: Number(event('c', 1).commitTimeUs / 1000n),
    severity_id: 5,
    severity: 'Critical',
    status_id: 1,
    status: 'New',
    is_alert: true,
    risk_score: 88,
    metadata: {
      version: '1.8.0',
      uid: `shop/app.findings/${at(1, 1)}/c`,
      tenant_uid: 'org-1',
      log_name: 'app.findings',
      product: { name: 'shop' },
    },
    finding_info: {
      uid: 'f-1',
      title: 'MFA was switched off',
      analytic: { uid: 'okta.mfa_disabled', type_id: 1, type: 'Rule' },
      first_seen_time: Date.UTC(2026, 10, 28, 10, 31, 37, 123),
      created_time: Date.UTC(2026, 10, 28, 10, 31, 37, 123),
      modified_time: Date.UTC(2026, 10, 28, 10, 31, 37),
    },
    unmapped: { op: 'c', source: 'shop', schema: 'app', table: 'findings', position: at(1, 1) },
  });
  // Rounded, cut, or meaningless to OCSF: the text itself is there.
  expect(json.unmapped.row).toMatchObject({
    risk_score: '87.50',
    exposure: 'NaN',
    suppressed_until: 'infinity',
    created_at: '2026-11-28 10:31:37.123456+00',
    oauth_scopes: '{a,b}',
    severity: 'critical',
    status: 'open',
    sla: null,
  });
  for (const exact of ['title', 'id', 'rule_id', 'first_seen_at', 'updated_at']) {
    expect(json.unmapped.row).not.toHaveProperty(exact);
  }
  expect(json.unmapped.unchanged).toEqual(['evidence']);
  const everywhere = JSON.stringify(json);
  for (const text of Object.values(row)) {
    if (text && !text.startsWith('2026')) expect(everywhere).toContain(JSON.stringify(text).slice(1, -1));
  }
});

test('what happens to a finding is its activity', () => {
  expect(encoded('u', { status: 'triaged' }).json).toMatchObject({
    activity_id: 2,
    status_id: 2,
    is_alert: false,
  });
  expect(encoded('u', { status: 'resolved' }).json).toMatchObject({
    activity_id: 3,
    type_uid: 200_403,
    status_id: 4,
  });
  expect(encoded('r', { status: 'resolved' }).json).toMatchObject({
    activity_id: 1,
    status_id: 4,
    is_alert: false,
  });
  expect(encoded('d').json).toMatchObject({
    activity_id: 3,
    status_id: 6,
    status: 'Deleted',
    severity_id: 0,
    finding_info: { uid: 'f-1' },
  });
  expect(encoded('e').json).toMatchObject({ activity_id: 2, status_id: 5, finding_info: { uid: 'f-1' } });
  expect(encoded('t').json).toMatchObject({
    class_uid: 0,
    activity_id: 99,
    activity_name: 'Truncate',
    type_uid: 99,
  });
  expect(encoded('s').json).toMatchObject({
    class_uid: 0,
    activity_name: 'Snapshot End',
    unmapped: { since: at(0) },
  });
});

test('own columns and words, and columns that are missing', () => {
  const own = {
    'finding.columns': [
      'finding_info.uid=id',
      'message=title',
      'severity_id=risk_score',
      'confidence_score=nowhere',
    ],
    'finding.severities': ['87.50=6'],
    'finding.product': 'Shield',
    'finding.vendor': 'Example',
  };
  const { json, missing } = encoded('c', {}, own);
  expect(json).toMatchObject({ message: 'MFA was switched off', severity_id: 6, severity: 'Fatal' });
  expect(json.metadata.product).toEqual({ name: 'Shield', vendor_name: 'Example' });
  expect(json).not.toHaveProperty('status_id');
  expect(missing).toEqual([['app.findings', ['nowhere']]]);
  expect(encoded('c', { severity: 'odd' }).json).toMatchObject({ severity_id: 99, severity: 'odd' });
  expect(encoded('c', { title: null, severity: null }).json).toMatchObject({
    severity_id: 0,
    unmapped: { row: { title: null, severity: null } },
  });
});

test('attribute values say whether they are exact', () => {
  const value = (path: string, text: string) => attributeValue(kindOf(path.split('.')), text);
  expect(value('x_time', '2026-02-30x')).toBeNull();
  expect(value('x_time', 'infinity')).toBeNull();
  expect(value('x_time', '0044-03-15 12:00:00+00 BC')).toBeNull();
  expect(value('x_time', '0099-01-01')).toEqual({
    value: new Date('0099-01-01T00:00:00Z').getTime(),
    exact: true,
  });
  expect(value('x_time', '10000-01-01 00:00:00.0001')).toMatchObject({ exact: false });
  expect(value('risk_score', '12')).toEqual({ value: 12, exact: true });
  expect(value('risk_score', '12.00')).toEqual({ value: 12, exact: false });
  expect(value('risk_score', '-0')).toMatchObject({ exact: false });
  expect(value('risk_score', '9'.repeat(30))).toBeNull();
  expect(value('risk_score', 'NaN')).toBeNull();
  expect(value('is_alerted', 't')).toEqual({ value: true, exact: true });
  expect(value('is_alerted', 'yes')).toBeNull();
});
