import { readFile, writeFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { storageOf } from '../../connectors/object-log/storage.ts';
import { typesReference } from '../../src/publish/types/reference.ts';

const pageFile = new URL('../../docs/types.md', import.meta.url);

test('the committed page on types is what the codecs say', async () => {
  const page = typesReference((type) => storageOf(type).duckdbType);
  if (process.env.TIDEMARK_WRITE_DOCS) await writeFile(pageFile, page);
  expect(await readFile(pageFile, 'utf8'), 'run npm run docs').toBe(page);
});
