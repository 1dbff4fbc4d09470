/** `tidemark check` and test deliveries: what can be known of an endpoint without a Change, and with a made-up one. */
import { randomUUID } from 'node:crypto';
import { asTidemarkError } from '../../../src/connector/failure.ts';
import { formatPosition } from '../../../src/connector/position.ts';
import type { TableShape } from '../../../src/connector/shape.ts';
import type { CheckFinding, OptionValues, RowEvent, SinkContext } from '../../../src/connector/sink.ts';
import { type Answer, accepted, failureOf, refusesContent } from './answers.ts';
import { bodyOf, contentTypes } from './batch.ts';
import { Endpoint, proxied } from './endpoint.ts';
import { type WebhookOptions, webhookOptionsFrom } from './options.ts';
import { encoderFor } from './webhook-sink.ts';

/** Nothing is posted: an endpoint that answers at all is there. */
export async function checkEndpoint(_context: SinkContext, values: OptionValues): Promise<CheckFinding[]> {
  return withEndpoint(values, async (endpoint, options) => {
    const answer = await endpoint.head(testId());
    const { status } = answer;
    const findings = surroundings(options);
    const what = `the endpoint answers HTTP ${status} to HEAD`;
    if (status === 401 || status === 403) {
      findings.push({ level: 'error', what, remedy: failureOf(answer).remedy });
    } else if (status >= 500 || status === 404 || status === 410) {
      findings.push({
        level: 'warn',
        what,
        remedy: 'Send a test delivery: `tidemark destination test <name>`.',
      });
    } else findings.push({ level: 'ok', what, remedy: null });
    return findings;
  });
}

export async function testEndpoint(context: SinkContext, values: OptionValues): Promise<CheckFinding[]> {
  return withEndpoint(values, async (endpoint, options) => {
    const id = testId();
    const json = encoderFor(options, context)(testEvent(options), testShape(options));
    const { format } = options;
    const outgoing = {
      json,
      bytes: 0,
      key: '',
      place: '',
      position: testPosition,
      shape: testShape(options),
    };
    const body = bodyOf([outgoing], format);
    const answer = await endpoint.post(id, body, contentTypes[format]);
    return [...surroundings(options), ...judged(answer, id, body.length, options)];
  });
}

function judged(
  answer: Answer,
  id: string,
  bytes: number,
  { endpoint, shape, format }: WebhookOptions,
): CheckFinding[] {
  const sent = `HTTP ${answer.status} after ${answer.durationMs} ms to one made-up ${shape} event (${format}, ${bytes} bytes, webhook-id ${id})`;
  if (!accepted(answer)) {
    const content = 'Make shape, format and headers what the endpoint understands.';
    return [
      { level: 'error', what: sent, remedy: refusesContent(answer) ? content : failureOf(answer).remedy },
    ];
  }
  const signatures = endpoint.secrets.length === 1 ? 'a signature' : `${endpoint.secrets.length} signatures`;
  return [
    { level: 'ok', what: sent, remedy: null },
    {
      level: 'ok',
      what: `it carried ${signatures}; look there that the endpoint verifies them and drops a webhook-id that it has seen`,
      remedy: null,
    },
  ];
}

function testId(): string {
  return `tm_test_${randomUUID().replaceAll('-', '')}`;
}

/** What the options alone tell. */
function surroundings({ endpoint: { url, allowPrivate, tls } }: WebhookOptions): CheckFinding[] {
  const findings: CheckFinding[] = [];
  if (url.protocol === 'http:') {
    findings.push({
      level: 'warn',
      what: 'events travel in plain text',
      remedy: 'Use https:// in url, unless the endpoint is on this machine or a network of its own.',
    });
  } else if (!tls.verify) {
    findings.push({
      level: 'warn',
      what: 'the endpoint’s certificate is not verified',
      remedy: 'Set tls.mode to verify-full, and tls.ca to its authority.',
    });
  }
  if (!allowPrivate && proxied(url)) {
    findings.push({
      level: 'warn',
      what: 'the proxy of the environment is not used, because allow.private.addresses is false',
      remedy:
        'Let the proxy keep private addresses out and set allow.private.addresses to true, or unset the proxy.',
    });
  }
  return findings;
}

async function withEndpoint(
  values: OptionValues,
  ask: (endpoint: Endpoint, options: WebhookOptions) => Promise<CheckFinding[]>,
): Promise<CheckFinding[]> {
  let endpoint: Endpoint | null = null;
  try {
    const options = webhookOptionsFrom(values);
    endpoint = new Endpoint(options.endpoint);
    return await ask(endpoint, options);
  } catch (error) {
    const { code, message, remedy } = asTidemarkError(error);
    return [{ level: 'error', what: `${code}: ${message}`, remedy }];
  } finally {
    await endpoint?.close();
  }
}

const testPosition = formatPosition({ epoch: 0, lsn: 0n, ordinal: 1 });

/** A table that no source has; with the columns that findings are made of, where that is what is sent. */
function testShape({ shape, finding }: WebhookOptions): TableShape {
  const mapped = shape === 'finding' ? finding.columns.map(({ column }) => column) : [];
  const names = [...new Set(['id', 'message', ...mapped])];
  return {
    schema: 'tidemark',
    name: 'test',
    columns: names.map((name) => ({ name, type: 'text', key: name === 'id', nullable: name !== 'id' })),
    keyColumns: [0],
    tenantColumn: null,
  };
}

function testEvent(options: WebhookOptions): RowEvent {
  const id = randomUUID();
  const severity = options.finding.columns.find(({ path }) => path.join('.') === 'severity_id')?.column;
  const title = options.finding.columns.find(({ path }) => path.join('.') === 'finding_info.title')?.column;
  const text = 'Test delivery from Tidemark: nothing happened';
  const values = testShape(options).columns.map(({ name }) => {
    if (name === 'id') return id;
    if (name === 'message' || name === title) return text;
    return name === severity ? 'info' : null;
  });
  return {
    op: 'c',
    position: testPosition,
    commitTimeUs: BigInt(Date.now()) * 1000n,
    key: [id],
    values,
    previousKey: null,
    before: null,
  };
}
