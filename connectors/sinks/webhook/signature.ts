/** Signatures by the Standard Webhooks convention: HMAC-SHA256 over `id.timestamp.body`, one for each secret. */
import { createHmac } from 'node:crypto';

/** @param timestamp whole seconds since 1970; receivers refuse one that is minutes old, so it is the attempt's */
export function signatureHeaders(
  secrets: readonly Buffer[],
  id: string,
  timestamp: number,
  body: Buffer,
): Record<string, string> {
  const signatures = secrets.map((secret) => {
    const digest = createHmac('sha256', secret).update(`${id}.${timestamp}.`).update(body).digest('base64');
    return `v1,${digest}`;
  });
  return {
    'webhook-id': id,
    'webhook-timestamp': String(timestamp),
    'webhook-signature': signatures.join(' '),
  };
}
