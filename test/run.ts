/**
 * `npm test`: vitest over everything, then one plain closing line. Arguments are passed on as file filters. A
 * component that is missing fails the run: nothing here is skipped because a server could not start.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

interface VitestReport {
  numPassedTests: number;
  numFailedTests: number;
  numPendingTests: number;
  numTodoTests: number;
  testResults: { name: string; status: string; message: string; assertionResults: unknown[] }[];
}

const folder = await mkdtemp(join(tmpdir(), 'tidemark-test-'));
const outputFile = join(folder, 'report.json');
const root = new URL('..', import.meta.url).pathname;
const startedAt = Date.now();
const vitest = spawn(
  process.execPath,
  [
    join(root, 'node_modules/vitest/vitest.mjs'),
    'run',
    '--config',
    'test/vitest.config.ts',
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${outputFile}`,
    ...process.argv.slice(2),
  ],
  { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] },
);
const exitCode = await new Promise<number>((resolve) => vitest.on('exit', (code) => resolve(code ?? 1)));
let passed = 0;
let failed = 0;
let skipped = 0;
try {
  const report = JSON.parse(await readFile(outputFile, 'utf8')) as VitestReport;
  passed = report.numPassedTests;
  skipped = report.numPendingTests + report.numTodoTests;
  // A file that could not even be loaded has no tests to count; it is a failure all the same.
  const broken = report.testResults.filter(
    ({ status, assertionResults }) => status === 'failed' && assertionResults.length === 0,
  );
  failed = report.numFailedTests + broken.length;
} catch {
  failed = 1;
}
if (exitCode !== 0 && failed === 0) failed = 1;
await rm(folder, { recursive: true, force: true });
process.stdout.write(
  `took ${Math.round((Date.now() - startedAt) / 1000)} s\n${passed} passed, ${failed} failed, ${skipped} skipped\n`,
);
process.exit(failed > 0 || passed === 0 ? 1 : 0);
