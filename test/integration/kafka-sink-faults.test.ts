/** Exactly once at the target: processes that die anywhere, brokers that go away, Windows longer than a transaction. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { OptionValues, RowEvent } from '../../src/connector/sink.ts';
import { LostMarkers } from '../fixtures/lost-markers.ts';
import { at, event, openSink, Target, users, windowOf } from './kafka-sink-harness.ts';
import { manyEvents, manyShape, rowsPerWindow } from './kafka-sink-load.ts';

let target: Target;
beforeAll(async () => {
  target = await Target.start(['kafka']);
});
afterAll(async () => {
  await target?.stop();
});

function child(options: OptionValues, failpoint: string, windows: number, token: number) {
  const file = join(import.meta.dirname, 'kafka-sink-child.ts');
  const args = [file, JSON.stringify(options), failpoint, String(windows), String(token)];
  return spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit'] });
}

async function ended(process: ReturnType<typeof child>): Promise<string> {
  const [code, signal] = await once(process, 'exit');
  return String(signal ?? code);
}

/** Every row of the Windows once, in each partition by growing Position. */
async function expectOnce(prefix: string, windows: number): Promise<void> {
  const records = await target.consume(`${prefix}.app.many`);
  const ids = records.map(({ value }) => Number(JSON.parse(value!.toString()).id));
  const wanted = Array.from({ length: windows * rowsPerWindow }, (_, i) => i + rowsPerWindow);
  expect(ids.toSorted((a, b) => a - b)).toEqual(wanted);
  for (const partition of [0, 1, 2]) {
    const own = records.filter((record) => record.partition === partition);
    const positions = own.map(({ headers }) => String(headers!['tidemark.position']));
    expect(positions).toEqual(positions.toSorted());
  }
}

test('killed at every failpoint, one after the other: every row is there once', async () => {
  const { prefix, options } = target.options();
  const failpoints = [
    'kafka-sink-taken-over',
    'kafka-sink-sent',
    'kafka-sink-before-commit',
    'kafka-sink-committed',
  ];
  for (const [i, failpoint] of failpoints.entries()) {
    expect(await ended(child(options, failpoint, 10, i + 1))).toBe('SIGKILL');
  }
  expect(await ended(child(options, 'none', 3, 9))).toBe('0');
  await expectOnce(prefix, 3);
});

test('killed at moments that nobody chose: every row is there once', async () => {
  const { prefix, options } = target.options();
  for (const [i, delay] of [900, 1300, 1700].entries()) {
    const doomed = child(options, 'none', 400, i + 1);
    await sleep(delay);
    doomed.kill('SIGKILL');
    await ended(doomed);
  }
  const { sink } = await openSink(options);
  const next = ((await sink.held('*'))?.sequence ?? 0) + 1;
  await sink.appendWindow(
    windowOf(next, [{ shape: manyShape, events: () => manyEvents(next) }], { fencingToken: 9n }),
  );
  await sink.close();
  await expectOnce(prefix, next);
});

test('a broker that restarts in the middle of a Window: TM401, and then every row once', async () => {
  const { prefix, options } = target.options();
  const { sink } = await openSink(options);
  await sink.appendWindow(windowOf(1, [{ shape: manyShape, events: () => manyEvents(1) }]));
  let batches = 0;
  const restarting = async () => {
    batches += 1;
    if (batches !== 4) return;
    await target.stack.stopPart('kafka', { signal: 'SIGKILL' });
    await target.stack.startPart('kafka');
  };
  const second = windowOf(2, [{ shape: manyShape, events: () => manyEvents(2, restarting) }]);
  for (let attempt = 0; ; attempt += 1) {
    const failed = await sink.appendWindow(second).then(
      () => null,
      (error: unknown) => error,
    );
    if (failed === null) break;
    expect(failed).toMatchObject({ code: 'TM401' });
    expect(attempt).toBeLessThan(10);
    await sleep(500);
  }
  await sink.close();
  await expectOnce(prefix, 2);
});

test('a zombie and its heir at the same time: the one with the smaller token goes, every row is there once', async () => {
  const { prefix, options } = target.options();
  const zombie = await openSink(options);
  const heir = await openSink(options);
  const parts = (sequence: number) => [
    { shape: manyShape, events: () => manyEvents(sequence, () => sleep(5)) },
  ];
  await zombie.sink.appendWindow(windowOf(1, parts(1)));
  const outcomes = await Promise.allSettled([
    zombie.sink.appendWindow(windowOf(2, parts(2))),
    heir.sink.appendWindow(windowOf(2, parts(2), { fencingToken: 2n })),
  ]);
  expect(outcomes[1].status).toBe('fulfilled');
  if (outcomes[0].status === 'rejected') expect(outcomes[0].reason).toMatchObject({ code: 'TM403' });
  await expect(zombie.sink.appendWindow(windowOf(3, parts(3)))).rejects.toMatchObject({ code: 'TM403' });
  // The zombie's attempt took the transactional id from the heir, who takes it back.
  await heir.sink.appendWindow(windowOf(3, parts(3), { fencingToken: 2n }));
  await Promise.all([zombie.sink.close(), heir.sink.close()]);
  await expectOnce(prefix, 3);
});

test('a Window longer than half of transaction.timeout is seen in parts; one that dies between them goes on behind them', async () => {
  const { prefix, options } = target.options({ 'transaction.timeout': 1000 });
  let batches = 0;
  const slow = async () => {
    batches += 1;
    await sleep(200);
    if (batches === 5) throw new Error('the worker died here');
  };
  const first = await openSink(options);
  await expect(
    first.sink.appendWindow(windowOf(1, [{ shape: manyShape, events: () => manyEvents(1, slow) }])),
  ).rejects.toThrow('died here');
  await first.sink.close();
  const seen = await target.consume(`${prefix}.app.many`);
  expect(seen.length).toBeGreaterThan(0);
  expect(seen.length).toBeLessThan(rowsPerWindow);
  const second = await openSink(options);
  expect(await second.sink.held('*')).toBeNull();
  const window = windowOf(1, [{ shape: manyShape, events: () => manyEvents(1, slow) }], { fencingToken: 2n });
  const receipt = await second.sink.appendWindow(window);
  expect(receipt).toMatchObject({ rows: { appended: rowsPerWindow }, alreadyHeld: false });
  expect(await second.sink.appendWindow(window)).toMatchObject({
    alreadyHeld: true,
    contentHash: receipt.contentHash,
  });
  expect(await second.sink.held('*')).toEqual({ position: at(1000, 999_999), sequence: 1, fencingToken: 2n });
  await second.sink.close();
  await expectOnce(prefix, 1);
});

test('what is there of a Window that was given up is not taken for what another one brings', async () => {
  const { prefix, options } = target.options({ 'transaction.timeout': 1000 });
  let row: RowEvent | undefined;
  for await (const [first] of manyEvents(1)) row ??= first;
  let batches = 0;
  const slow = async () => {
    await sleep(200);
    if (++batches === 5) throw new Error('given up');
  };
  const { sink } = await openSink(options);
  const part = { shape: manyShape, events: () => manyEvents(1, slow) };
  await expect(sink.appendWindow(windowOf(1, [part]))).rejects.toThrow('given up');
  // As rows come out of Quarantine: older than where the Unit stands.
  const mark = at(2000, 999_999);
  const again = windowOf(1, [{ shape: manyShape, events: [row!] }], { from: mark, to: mark });
  expect(await sink.appendWindow(again)).toMatchObject({ alreadyHeld: false });
  await sink.close();
  const records = await target.consume(`${prefix}.app.many`);
  const same = records.filter(({ headers }) => String(headers!['tidemark.position']) === row!.position);
  expect(same).toHaveLength(2);
});

test('Kafka loses the end of a committed transaction in one partition: TM401, and the retry commits it again', async () => {
  const { prefix, options } = target.options({ 'topic.partitions': 1 });
  const topic = `${prefix}.app.users`;
  const { sink, logs } = await openSink(options);
  const write = (sequence: number) => {
    const inserted = event('c', at(sequence * 1000), { key: ['1'], values: ['1', `name ${sequence}`, null] });
    return sink.appendWindow(windowOf(sequence, [{ shape: users, events: [inserted] }]));
  };
  const names = async () =>
    (await target.consume(topic)).map(({ value }) => JSON.parse(value!.toString()).name);
  const markers = await LostMarkers.install(target.kafka);
  try {
    await write(1);
    const ours = (name: string) => name === topic;
    markers.next({ of: ours, loses: ours, aborted: false });
    await expect(write(2)).rejects.toMatchObject({
      code: 'TM401',
      message: expect.stringContaining('consumers do not see it'),
    });
  } finally {
    markers.remove();
  }
  expect(markers.lost).toEqual([`${topic}/0`]);
  // The Window is held already: nothing more is written that could decide it.
  await write(2);
  expect(await names()).toEqual(['name 1', 'name 2']);
  expect(logs.filter((line) => line.includes('committed again'))).toEqual([
    expect.stringContaining(`${topic}/0`),
  ]);
  await write(3);
  expect(await names()).toEqual(['name 1', 'name 2', 'name 3']);
  await sink.close();
});
