/**
 * The webhook sink: signed HTTP requests to a SIEM or any other endpoint. See README.md. The HTTP library is loaded when
 * the sink is opened: a process that delivers elsewhere does not have it in memory.
 */
import type { SinkKind } from '../../../src/connector/sink.ts';
import { webhookOptionFields, webhookOptionsFrom } from './options.ts';

export const webhookSink: SinkKind = {
  name: 'webhook',
  unit: 'table',
  keepsRows: false,
  leftovers: () => ({
    row: 'stays',
    left: ['what was sent is with its receiver, who is sent the delete as well: ask there'],
  }),
  options: webhookOptionFields,
  pauseAfterMs: 24 * 3_600_000,

  async check(context, values) {
    return (await import('./check.ts')).checkEndpoint(context, values);
  },

  async open(context, values) {
    const { WebhookSink } = await import('./webhook-sink.ts');
    return new WebhookSink(context, webhookOptionsFrom(values));
  },

  async test(context, values) {
    return (await import('./check.ts')).testEndpoint(context, values);
  },
};
