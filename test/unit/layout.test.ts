/** The shape of the code is tested like its behaviour: formatter, linter, types, and the arrows between rooms. */
import { execFile } from 'node:child_process';
import { access, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { longest } from '../longest-first.ts';

const run = promisify(execFile);
const root = new URL('../..', import.meta.url).pathname;
const bin = `${root}node_modules/.bin/`;

async function succeeds(program: string, args: string[]): Promise<string> {
  try {
    await run(`${bin}${program}`, args, { cwd: root, maxBuffer: 1 << 24 });
    return '';
  } catch (error) {
    return `${(error as { stdout?: string }).stdout}${(error as { stderr?: string }).stderr}`.slice(-4000);
  }
}

test('formatter and linter find nothing', async () => {
  expect(await succeeds('biome', ['check', '--error-on-warnings', '.'])).toBe('');
});

test('types are right', async () => {
  expect(await succeeds('tsc', ['-p', '.'])).toBe('');
});

test('an import against the arrows fails the linter', async () => {
  const file = `${root}src/platform/against-the-arrows.ts`;
  await writeFile(
    file,
    `import type { Publisher } from '../publish/publisher.ts';\n\nexport type Upwards = Publisher;\n`,
  );
  try {
    expect(await succeeds('biome', ['lint', file])).toContain('noRestrictedImports');
  } finally {
    await rm(file);
  }
});

test('no file names a registry host', async () => {
  const lock = await readFile(`${root}package-lock.json`, 'utf8');
  expect(lock).not.toContain('"resolved"');
  const tracked = (await run('git', ['ls-files'], { cwd: root })).stdout.trim().split('\n');
  const host = new RegExp(
    ['registry\\.npmjs', 'repo1?\\.maven', 'files\\.pythonhosted', 'pypi\\.org', 'proxy\\.golang'].join('|'),
  );
  for (const file of tracked.filter((name) => !name.endsWith('.test.ts'))) {
    const text = await readFile(`${root}${file}`, 'utf8').catch(() => '');
    expect(host.test(text), file).toBe(false);
  }
});

test('the lockfile lists every optional package: npm ci refuses one that leaves some out', async () => {
  const lock = JSON.parse(await readFile(`${root}package-lock.json`, 'utf8')) as {
    packages: Record<string, { optionalDependencies?: Record<string, string> }>;
  };
  for (const [path, { optionalDependencies = {} }] of Object.entries(lock.packages)) {
    for (const name of Object.keys(optionalDependencies)) {
      const listed = [`node_modules/${name}`, `${path}/node_modules/${name}`].some(
        (key) => key in lock.packages,
      );
      expect(listed, `${path} wants ${name}`).toBe(true);
    }
  }
});

test('every room of src is one the linter knows', async () => {
  const config = JSON.parse(await readFile(`${root}.biome.json`, 'utf8')) as {
    overrides: { includes: string[] }[];
  };
  const known = new Set(config.overrides.flatMap(({ includes }) => includes));
  for (const entry of await readdir(`${root}src`, { withFileTypes: true })) {
    if (entry.isDirectory()) expect(known.has(`src/${entry.name}/**`), entry.name).toBe(true);
  }
});

test('the longest test files, which begin first, are there', async () => {
  for (const file of Object.keys(longest))
    await expect(access(`${root}${file}`), file).resolves.toBeUndefined();
});
