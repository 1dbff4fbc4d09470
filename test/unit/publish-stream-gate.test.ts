/** Nothing that commits at or beyond the gate comes through, and nothing before it is kept waiting. */
import { expect, test } from 'vitest';
import { StreamGate } from '../../src/publish/stream-gate.ts';

function begin(commitLsn: bigint): Buffer {
  const bytes = Buffer.alloc(21);
  bytes[0] = 0x42;
  bytes.writeBigUInt64BE(commitLsn, 1);
  return bytes;
}

const insert = Buffer.from([0x49, 0, 0, 0, 1, 0x4e, 0, 0]);

async function settled(promise: Promise<void>): Promise<boolean> {
  return Promise.race([
    promise.then(() => true),
    new Promise<false>((resolve) => setImmediate(resolve, false)),
  ]);
}

test('an open gate stops nothing', () => {
  const gate = new StreamGate();
  expect(gate.stops(begin(8n))).toBe(false);
  gate.passed(100n);
  expect(gate.closed).toBe(false);
});

test('the first Transaction that commits at the gate or beyond waits, and says that everything before has come', async () => {
  const gate = new StreamGate();
  const arrived = gate.close(64n);
  expect(gate.stops(begin(56n))).toBe(false);
  expect(gate.stops(insert)).toBe(false);
  expect(await settled(arrived)).toBe(false);
  expect(gate.stops(begin(64n))).toBe(true);
  expect(await settled(arrived)).toBe(true);
  expect(gate.stops(begin(72n))).toBe(true);
  gate.open();
  expect(gate.stops(begin(72n))).toBe(false);
});

test('on an idle source a keepalive at the gate says so', async () => {
  const gate = new StreamGate();
  const arrived = gate.close(64n);
  gate.passed(0n);
  gate.passed(63n);
  expect(await settled(arrived)).toBe(false);
  gate.passed(64n);
  expect(await settled(arrived)).toBe(true);
  expect(gate.stops(begin(64n))).toBe(true);
});

test('a gate at 0 stops whatever begins, and is reached between Transactions', async () => {
  const gate = new StreamGate();
  const arrived = gate.close(0n);
  expect(gate.stops(begin(8n))).toBe(true);
  expect(await settled(arrived)).toBe(true);
  gate.open();
  const again = gate.close(0n);
  gate.passed(0n);
  expect(await settled(again)).toBe(true);
});
