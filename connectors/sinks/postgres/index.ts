/** Destination kind `postgres`: a logical replica, all tables of a Window in one transaction. See README.md. */
import type { SinkKind } from '../../../src/connector/sink.ts';
import { checkDestination } from './check.ts';
import { optionFields, resolveSettings } from './options.ts';
import { PostgresSink } from './sink.ts';

export const postgresSink: SinkKind = {
  name: 'postgres',
  unit: 'destination',
  options: optionFields,
  check: checkDestination,
  open: async (context, options) => new PostgresSink(context, resolveSettings(options)),
};
