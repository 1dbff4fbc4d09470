/** Which columns leave Postgres, whatever they are called. */
import { expect, it } from 'vitest';
import type { SourceConfig } from '../../src/platform/resolved-config.ts';
import { columnPolicy } from '../../src/replicate/catalogue.ts';

const source = {
  tables: [{ pattern: 'app.*', tenantColumn: undefined, columns: { note: 'drop', email: 'keep' } }],
} as unknown as SourceConfig;
const table = { schema: 'app', name: 't' };

it.each([
  ['note', false, 'drop'],
  ['email', true, 'keep'],
  ['phone', true, 'drop'],
  ['constructor', false, 'keep'],
  ['toString', true, 'drop'],
  ['__proto__', false, 'keep'],
])('%s, personal %s: %s', (name, personal, policy) => {
  expect(columnPolicy(source, table, { name, personal })).toBe(policy);
});
