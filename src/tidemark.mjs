#!/usr/bin/env node
// Plain JavaScript, so that a Node too old for TypeScript can still say what is wrong.
const [major] = process.versions.node.split('.').map(Number);
if (major < 24) {
  console.error(
    `tidemark needs Node 24 or newer, this is ${process.version}. In a checkout, \`npm ci\` installs it: use \`npm run tidemark -- …\` or \`npx tidemark …\`.`,
  );
  process.exit(2);
}
// kafkajs 2.2 computes a negative delay now and then; Node makes it 1 ms and warns. Nobody can act on that.
process.removeAllListeners('warning');
process.on('warning', (warning) => {
  if (warning.name !== 'TimeoutNegativeWarning') console.error(`${warning.name}: ${warning.message}`);
});
const { main } = await import('./main.ts');
await main(process.argv.slice(2));
