/** The measured process of parquet-speed.test.ts. Arguments: encoder, rows, tenants, folder. Prints JSON. */
import { readdir } from 'node:fs/promises';
import type { RowEvent } from '../../src/connector/sink.ts';
import {
  asJsonl,
  at,
  column,
  commitTime,
  openSink,
  optionValues,
  shapeOf,
  windowOf,
} from './parquet-harness.ts';

const [encoder, rowsText, tenantsText, folder] = process.argv.slice(2) as [string, string, string, string];
const rows = Number(rowsText);
const tenants = Number(tenantsText);
const shape = shapeOf(
  'findings',
  [
    column('id', 'uuid', true),
    column('tenant', 'text', true),
    column('title', 'text'),
    column('details', 'jsonb'),
    column('score', 'numeric(6,2)'),
    column('seen', 'timestamp with time zone'),
    column('count', 'bigint'),
    column('ratio', 'double precision'),
    column('open', 'boolean'),
    column('severity', 'app.severity'),
  ],
  'tenant',
);

async function* events(): AsyncIterable<RowEvent[]> {
  for (let start = 0; start < rows; start += 1000) {
    const batch: RowEvent[] = [];
    for (let number = start; number < Math.min(rows, start + 1000); number += 1) {
      const hex = number.toString(16).padStart(12, '0');
      const key = [`8b2f7c1a-5d3e-4f60-9a7b-${hex}`, `tenant-${(number * 7919) % tenants}`];
      batch.push({
        op: 'c',
        position: at(1, number + 1),
        commitTimeUs: commitTime(1),
        key,
        values: [
          ...key,
          `Outbound connection ${number} to a rare domain`,
          `{"rule": "R-${number % 97}", "host": "host-${number % 5003}", "bytes": ${number * 31}, "tags": ["net", "rare"]}`,
          `${number % 1000}.25`,
          `2026-11-24 02:20:${String(number % 60).padStart(2, '0')}.${String(100001 + (number % 899998))}+00`,
          String(number * 1000),
          `0.${number % 1000}5`,
          number % 2 === 0 ? 't' : 'f',
          'high',
        ],
        previousKey: null,
        before: null,
      });
    }
    yield batch;
  }
}

const mebibyte = 1024 * 1024;
const options = optionValues({ 'parquet.url': `file://${folder}/lake` });
const { sink } = await openSink(
  encoder === 'jsonl' ? asJsonl(options) : { ...options, 'parquet.encoder': encoder },
  `${folder}/scratch`,
);
// A first small Window: what libraries allocate once is not the Window's.
await sink.appendWindow(windowOf(shape, 1, [0, 1], []));
const before = process.memoryUsage.rss();
let peak = 0;
const watch = setInterval(() => {
  peak = Math.max(peak, process.memoryUsage.rss());
}, 20);
const started = performance.now();
const cpu = process.cpuUsage();
const receipt = await sink.appendWindow(windowOf(shape, 2, [1, 2], events));
const written = performance.now();
const used = process.cpuUsage(cpu);
const writePeak = peak;
const extraMiB = Math.round((writePeak - before) / mebibyte);
console.error(`written: ${extraMiB} MiB extra`);
let read = 0;
for await (const batch of sink.readTable(shape, at(2))) {
  read += batch.length;
}
const readAt = performance.now();
clearInterval(watch);
await sink.close();
console.log(
  JSON.stringify({
    rows,
    rowsPerSecond: Math.round((rows / (written - started)) * 1000),
    // Making the rows up included.
    cpuMicrosPerRow: Math.round(((used.user + used.system) / rows) * 100) / 100,
    readRowsPerSecond: Math.round((read / (readAt - written)) * 1000),
    read,
    fileMiB: Math.round(receipt.bytes / mebibyte),
    beforeMiB: Math.round(before / mebibyte),
    extraMiB,
    files: (await readdir(`${folder}/lake`, { recursive: true })).filter((name) =>
      /\.(parquet|jsonl\.zst)$/.test(name),
    ).length,
    readExtraMiB: Math.round((peak - before) / mebibyte),
  }),
);
