#!/usr/bin/env node
import module from 'node:module';

// Plain JavaScript, so that a Node too old for TypeScript can still say what is wrong.
const [major] = process.versions.node.split('.').map(Number);
if (major < 24) {
  console.error(
    `tidemark needs Node 24 or newer, this is ${process.version}. In a checkout, \`npm ci\` installs it: use \`npm run tidemark -- …\` or \`npx tidemark …\`.`,
  );
  process.exit(2);
}

// Memory is promised by configuration, and V8 by itself lets garbage grow to several times what lives. A small nursery
// (nearly all garbage here is young), and an old generation that grows 2.5-fold between collections at most, take the
// reader's peak over 1,000,000 rows from 300 to 260 MiB at the same CPU a row (`run` is stricter where it delivers).
// Whoever delivers has whole batches of rows alive at a time, which a nursery of 4 MiB promotes: 27 against 18 µs of CPU a
// row. An idle one stays small. Its batches' buffers count as heap that grows, of which little lives: without room for them
// at the start all of it is marked every 30 MiB, 4 µs a row.
// V8 takes the nursery's size only at its start, so the process replaces itself once (same pid).
const roles = process.argv[process.argv.indexOf('--roles') + 1];
const delivers =
  process.argv[2] === 'run' && (!process.argv.includes('--roles') || roles?.includes('deliver'));
const nursery = delivers
  ? ['--max-semi-space-size=32', '--initial-old-space-size=96']
  : ['--max-semi-space-size=4'];
const flags = [...nursery, '--heap-growing-percent=150'];
const tuned = flags.every((flag) => process.execArgv.includes(flag));
if (!tuned && typeof process.execve === 'function' && process.platform !== 'win32') {
  const kept = process.execArgv.filter((flag) => !flags.includes(flag));
  process.removeAllListeners('warning');
  process.execve(
    process.execPath,
    [process.execPath, ...flags, ...kept, ...process.argv.slice(1)],
    process.env,
  );
}

// Half of what a short command costs is to compile: kept where an installation of other code has its own.
const cache = new URL('../node_modules/.cache/tidemark/', import.meta.url).pathname;
module.enableCompileCache?.(process.env.NODE_COMPILE_CACHE ?? cache);
// By itself it is written at a clean exit, which a process that is killed never has.
setTimeout(() => module.flushCompileCache?.(), 3000).unref();

const { main } = await import('./main.ts');
await main(process.argv.slice(2));
