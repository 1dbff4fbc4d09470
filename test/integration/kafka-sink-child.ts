/** A process that writes Windows to a mirror until it is killed, or kills itself at a failpoint. Told by its arguments. */
import { openSink, windowOf } from './kafka-sink-harness.ts';
import { manyEvents, manyShape } from './kafka-sink-load.ts';

const [optionsText, failpoint, windows, token] = process.argv.slice(2) as [string, string, string, string];

const { sink } = await openSink(JSON.parse(optionsText), async (name) => {
  if (name === failpoint) process.kill(process.pid, 'SIGKILL');
});
const held = await sink.held('*');
for (let sequence = (held?.sequence ?? 0) + 1; sequence <= Number(windows); sequence += 1) {
  const part = { shape: manyShape, events: () => manyEvents(sequence) };
  await sink.appendWindow(windowOf(sequence, [part], { fencingToken: BigInt(token) }));
}
await sink.close();
