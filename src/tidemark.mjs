#!/usr/bin/env node
// Plain JavaScript, so that a Node too old for TypeScript can still say what is wrong.
const [major] = process.versions.node.split('.').map(Number);
if (major < 24) {
  console.error(
    `tidemark needs Node 24 or newer, this is ${process.version}. In a checkout, \`npm ci\` installs it: use \`npm run tidemark -- …\` or \`npx tidemark …\`.`,
  );
  process.exit(2);
}

// Nearly all garbage here is young. A small nursery makes a process that mostly copies bytes about 100 MiB smaller, at
// a few per cent of its speed; V8 takes the setting only at its start, so the process replaces itself once (same pid).
// kafkajs 2.2 computes a negative delay now and then; Node makes it 1 ms and warns. Nobody can act on that.
const flags = ['--max-semi-space-size=4', '--disable-warning=TimeoutNegativeWarning'];
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

const { main } = await import('./main.ts');
await main(process.argv.slice(2));
