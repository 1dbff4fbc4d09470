/** `tidemark check`: whether catalog and store are fit, tried out on a table of its own. */
import { randomBytes } from 'node:crypto';
import { asTidemarkError } from '../../../src/connector/failure.ts';
import type { CheckFinding, OptionValues, SinkContext } from '../../../src/connector/sink.ts';
import { Lake } from './lake.ts';
import { progressIdentifier } from './names.ts';
import { resolveSettings } from './options.ts';
import { fence } from './progress/progress-table.ts';

export async function checkDestination(context: SinkContext, options: OptionValues): Promise<CheckFinding[]> {
  let lake: Lake | null = null;
  try {
    const settings = resolveSettings(options);
    lake = await Lake.open(settings);
    return await findings(lake, progressIdentifier(settings.namespace, context).namespace);
  } catch (error) {
    const failure = asTidemarkError(error);
    return [{ level: 'error', what: `${failure.code}: ${failure.message}`, remedy: failure.remedy }];
  } finally {
    await lake?.close();
  }
}

async function findings(lake: Lake, namespace: readonly string[]): Promise<CheckFinding[]> {
  const identifier = { namespace, name: `tidemark_check_${randomBytes(6).toString('hex')}` };
  const table = await lake.ensure(identifier, () => ({
    schema: {
      type: 'struct',
      'schema-id': 0,
      fields: [{ id: 1, name: 'n', required: false, type: 'int' }],
    },
  }));
  try {
    await fence(lake, table, { 'tidemark.check': 'true' });
  } finally {
    await lake.catalog.dropTable(identifier, true);
  }
  const found: CheckFinding[] = [
    {
      level: 'ok',
      what: 'the catalog makes, commits and drops tables, and their files can be written',
      remedy: null,
    },
  ];
  if (!lake.catalog.commitsTogether) {
    found.push({
      level: 'warn',
      what: 'the catalog commits one table at a time: for a moment readers see a Window in some tables only',
      remedy:
        'Nothing is lost by it. Where readers join tables, use a catalog with multi-table commits, or compare the tables’ tidemark.sequence.',
    });
  }
  return found;
}
