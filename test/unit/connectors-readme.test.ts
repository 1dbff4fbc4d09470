/** What connectors/README.md shows of the example sink is the code that the conformance suite runs. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { sinkKinds } from '../../connectors/sinks/registry.ts';

const root = new URL('../..', import.meta.url).pathname;
const example = join(root, 'test/conformance/example-sink');

test('every piece of code in it is in the example, word for word', async () => {
  const readme = await readFile(join(root, 'connectors/README.md'), 'utf8');
  const files = await readdir(example);
  const code = await Promise.all(files.map((file) => readFile(join(example, file), 'utf8')));
  const blocks = [...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, block]) => block!);
  expect(blocks.length).toBeGreaterThan(2);
  for (const block of blocks)
    expect(
      code.some((text) => text.includes(block)),
      block,
    ).toBe(true);
});

test('it names every kind, and every kind has its page, an example instance or the same one, and a conformance test', async () => {
  const readme = await readFile(join(root, 'connectors/README.md'), 'utf8');
  const suites = await readdir(join(root, 'test/conformance'));
  const instances = await readdir(join(root, 'connectors/instances'));
  const examples = await Promise.all(
    instances
      .filter((name) => name.endsWith('.example.json'))
      .map((name) => readFile(join(root, 'connectors/instances', name), 'utf8')),
  );
  for (const kind of sinkKinds.keys()) {
    expect(readme).toContain(`[${kind}](sinks/${kind}/README.md)`);
    await readFile(join(root, `connectors/sinks/${kind}/README.md`), 'utf8');
    expect(
      suites.some((name) => name.startsWith(kind) && name.endsWith('.test.ts')),
      kind,
    ).toBe(true);
    expect(
      examples.some((text) => text.includes(`"connector.class": "${kind}"`)),
      kind,
    ).toBe(true);
  }
});
