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
  leftovers(options) {
    const { deletedAt, historySuffix } = resolveSettings(options);
    return {
      row: deletedAt === null ? 'gone' : 'stays',
      left: [
        ...(deletedAt === null
          ? []
          : [`soft.deletes: the row stays, its ${deletedAt} set; delete it by hand`]),
        ...(historySuffix === null
          ? []
          : [`history: its Changes stay in <table>${historySuffix}; delete them by hand`]),
        'backups and archived WAL of the destination',
      ],
    };
  },
  open: async (context, options) => new PostgresSink(context, resolveSettings(options)),
};
