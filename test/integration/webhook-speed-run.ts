/**
 * One measured delivery in a process of its own: `node webhook-speed-run.ts <options as JSON> <rows>`. The endpoint is
 * another process (`node webhook-speed-run.ts endpoint <milliseconds an answer takes>`), which reads and counts.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { OptionValues } from '../../src/connector/sink.ts';
import { event, openSink, shapeOf, windowOf } from './webhook-harness.ts';

const columns = ['id', 'org', 'rule', 'title', 'severity', 'status', 'score', 'created_at', 'detail', 'note'];

function serve(answerMs: number): void {
  let bytes = 0;
  const server = createServer((request, response) => {
    request.on('data', (piece: Buffer) => {
      bytes += piece.length;
    });
    request.on('end', () => {
      if (answerMs === 0) response.writeHead(204).end();
      else setTimeout(() => response.writeHead(204).end(), answerMs);
    });
  });
  server.listen(0, '127.0.0.1', () => {
    process.stdout.write(`http://127.0.0.1:${(server.address() as AddressInfo).port}/\n`);
  });
  process.on('SIGTERM', () => {
    process.stderr.write(`${bytes} bytes\n`);
    process.exit(0);
  });
}

async function deliver(options: OptionValues, rows: number): Promise<void> {
  const shape = shapeOf('findings', columns);
  const detail = JSON.stringify({ hops: 3, why: ['ten words that say why this is a finding', null] });
  const batches = async function* () {
    for (let first = 0; first < rows; first += 1000) {
      yield Array.from({ length: Math.min(1000, rows - first) }, (_, index) => {
        const id = `b7e0c0de-0000-4000-8000-${String(first + index).padStart(12, '0')}`;
        const cells = [
          'acme',
          'okta.mfa_disabled',
          'MFA was switched off for an administrator',
          'high',
          'open',
        ];
        const values = [id, ...cells, '87.50', '2026-11-28 10:31:37.123456+00', detail, null];
        return event('c', first + index + 1, { key: [id], values });
      });
    }
  };
  const { sink } = await openSink(options);
  const startRss = process.memoryUsage().rss;
  const startCpu = process.cpuUsage();
  const begun = performance.now();
  const receipt = await sink.sendWindow(windowOf(batches, { shape, to: rows + 1 }));
  const seconds = (performance.now() - begun) / 1000;
  const cpu = process.cpuUsage(startCpu);
  await sink.close();
  const outcome = {
    appended: receipt.rows.appended,
    rowsPerSecond: Math.round(rows / seconds),
    bytesPerRow: Math.round(receipt.bytes / rows),
    cpuMicrosecondsPerRow: Number(((cpu.user + cpu.system) / rows).toFixed(1)),
    grownMiB: Math.round((process.resourceUsage().maxRSS * 1024 - startRss) / 2 ** 20),
  };
  process.stdout.write(`${JSON.stringify(outcome)}\n`);
}

const [order, amount] = process.argv.slice(2) as [string, string];
if (order === 'endpoint') serve(Number(amount));
else await deliver(JSON.parse(order) as OptionValues, Number(amount));
