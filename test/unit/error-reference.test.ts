/** docs/errors.md is generated from the catalogue. */
import { readFile, writeFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { errorCatalogue } from '../../src/platform/errors.ts';

const file = new URL('../../docs/errors.md', import.meta.url);

const retries = {
  transient: 'tried again with backoff, for as long as it takes',
  operator: 'stops that path until somebody acts',
  data: 'concerns one table or row: it is set aside, the rest goes on',
  bug: 'stops, because something did not hold that always should',
};

function page(): string {
  const lines = [
    '# Errors',
    '',
    'Generated from `src/platform/errors.ts`. Codes are never reused.',
    '',
    '| class | what Tidemark does |',
    '| --- | --- |',
  ];
  for (const [name, text] of Object.entries(retries)) lines.push(`| ${name} | ${text} |`);
  lines.push('', '| code | class | what happened | what to do |', '| --- | --- | --- | --- |');
  for (const [code, { retry, meaning, remedy }] of Object.entries(errorCatalogue)) {
    lines.push(
      `| ${code} | ${retry} | ${meaning.replaceAll('|', '\\|')} | ${remedy.replaceAll('|', '\\|')} |`,
    );
  }
  return `${lines.join('\n')}\n`;
}

test('docs/errors.md is what the catalogue says', async () => {
  if (process.env.TIDEMARK_WRITE_DOCS) await writeFile(file, page());
  expect(await readFile(file, 'utf8')).toBe(page());
});
