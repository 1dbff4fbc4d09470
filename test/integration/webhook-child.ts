/**
 * A process that sends one Window and may be killed at a failpoint: `node webhook-child.ts <options as JSON> <events>`.
 * Writes the Receipt as a line.
 */
import type { OptionValues, SendSink } from '../../src/connector/sink.ts';
import { failpoint } from '../../src/platform/failpoint.ts';
import { inserts, openSink, windowOf } from './webhook-harness.ts';

const options = JSON.parse(process.argv[2]!) as OptionValues;
const { sink } = await openSink(options, failpoint);
const receipt = await (sink as SendSink).sendWindow(windowOf(inserts(Number(process.argv[3]))));
await sink.close();
process.stdout.write(`${JSON.stringify(receipt)}\n`);
