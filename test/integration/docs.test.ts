/** Every command in the documentation is run by a test: the quick ones here, the others where this list says. */
import { access, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FaultStack } from '../fixtures/pipeline.ts';

const root = new URL('../..', import.meta.url).pathname;

/** A pattern of commands that other tests run, and where. */
const elsewhere: [RegExp, string][] = [
  [/^npm ci && npm run demo$/, 'test/integration/demo.test.ts'],
  [/^npm run demo -- --once/, 'test/integration/demo.test.ts'],
  [/^npm ci && npm test$/, '.ci/run'],
  [/^npm run bench/, 'test/bench/run.ts'],
  [/^npm run stack/, 'test/integration/stack.test.ts'],
  [/^eval "\$\(npm run/, 'test/integration/stack.test.ts'],
  [/^docker compose/, 'test/unit/compose-file.test.ts'],
  [/^(npm run docs|TIDEMARK_WRITE_DOCS=1 )/, 'test/unit/config-reference.test.ts'],
  [/^(apt-get|brew|cp|export|rm|curl|duckdb|psql) /, 'the system, not Tidemark'],
  [/^npx tidemark run/, 'test/faults'],
  [/^tidemark retain (hold|override) /, 'test/integration/retain-grants.test.ts'],
  [/^tidemark retain (check-)?evidence /, 'test/faults/retention-evidence.test.ts'],
  [/^tidemark retain /, 'test/faults/retention.test.ts'],
  [/^tidemark recall /, 'test/faults/recall.test.ts'],
  [/^tidemark erase /, 'test/faults/erase.test.ts'],
  [/^npx tidemark resume /, 'test/faults/shape-changes.test.ts'],
];

interface Documented {
  file: string;
  command: string;
}

async function documents(): Promise<string[]> {
  const files = ['README.md', 'compose/README.md', 'connectors/README.md', 'connectors/instances/README.md'];
  for (const name of await readdir(join(root, 'docs'))) if (name.endsWith('.md')) files.push(`docs/${name}`);
  for (const kind of await readdir(join(root, 'connectors/sinks'), { withFileTypes: true }))
    if (kind.isDirectory()) files.push(`connectors/sinks/${kind.name}/README.md`);
  return files;
}

async function documentedCommands(): Promise<Documented[]> {
  const files = ['README.md', 'connectors/README.md', 'compose/README.md', 'connectors/instances/README.md'];
  for (const name of await readdir(join(root, 'docs'))) if (name.endsWith('.md')) files.push(`docs/${name}`);
  const commands: Documented[] = [];
  for (const file of files) {
    const text = await readFile(join(root, file), 'utf8');
    for (const [, block] of text.matchAll(/```(?:sh|bash|shell)\n([\s\S]*?)```/g)) {
      for (const line of block!.split('\n')) {
        const command = line.replace(/\s+#.*$/, '').trim();
        if (command && !command.startsWith('#')) commands.push({ file, command });
      }
    }
  }
  return commands;
}

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('docs');
});
afterAll(async () => {
  await faults?.stop();
});

test('every documented command does what it says, or is tested elsewhere', async () => {
  const documented = await documentedCommands();
  expect(documented.length).toBeGreaterThan(5);
  await faults.run('docs', {}, async (pipeline) => {
    const { reader, delivery } = await pipeline.begin();
    const ours = documented.filter(({ command }) => !elsewhere.some(([pattern]) => pattern.test(command)));
    // What takes things away comes last, after the processes are gone.
    ours.sort((a, b) => Number(a.command.includes('teardown')) - Number(b.command.includes('teardown')));
    let stopped = false;
    for (const { file, command } of ours) {
      const match = /^(?:npx )?tidemark (.+)$/.exec(command);
      expect(match, `${file}: nobody runs \`${command}\``).not.toBeNull();
      const args = match![1]!.split(' ').filter((word) => word !== '');
      if (args[0] === 'teardown' && !stopped) {
        await Promise.all([reader.stop(), delivery.stop()]);
        stopped = true;
      }
      const outcome = await pipeline.command(args);
      expect(outcome.code, `${file}: ${command}\n${outcome.stdout}\n${outcome.stderr}`).toBe(0);
    }
  });
});

test('every link in the documentation leads to a file', async () => {
  for (const file of await documents()) {
    const text = await readFile(join(root, file), 'utf8');
    for (const [, target] of text.matchAll(/\]\(([^)#]+)(?:#[^)]*)?\)/g)) {
      if (/^https?:/.test(target!)) continue;
      await expect(access(join(root, file, '..', target!)), `${file}: ${target}`).resolves.toBeUndefined();
    }
  }
});
