/**
 * Destination kind `kafka`: flattened rows in another cluster or another layout of topics, one Kafka transaction for a
 * Window. See README.md. What it is made of is loaded when it is opened: a process that delivers elsewhere has no
 * kafkajs of this sink in memory.
 */
import type { SinkKind } from '../../../src/connector/sink.ts';
import { optionFields } from './options.ts';

export const kafkaSink: SinkKind = {
  name: 'kafka',
  unit: 'destination',
  // Its topics have a retention of their own.
  keepsRows: false,
  leftovers: () => ({
    row: 'stays',
    left: ['records stay until the retention or compaction of its topics takes them; the delete is one more'],
  }),
  options: optionFields,

  async check(context, options) {
    const [{ checkTarget }, { resolveSettings }] = await Promise.all([
      import('./check.ts'),
      import('./settings.ts'),
    ]);
    return checkTarget(context, await resolveSettings(context, options));
  },

  async open(context, options) {
    const [{ KafkaSink }, { resolveSettings }] = await Promise.all([
      import('./sink.ts'),
      import('./settings.ts'),
    ]);
    return new KafkaSink(context, await resolveSettings(context, options));
  },
};
