/** Rows in memory that go to the window store, as far as there is room for them. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DuckDBInstance } from '@duckdb/node-api';
import { expect, test } from 'vitest';
import { beforeEverything, formatPosition } from '../../src/connector/position.ts';
import type { IncomingChange } from '../../src/deliver/stored-change.ts';
import { UnitStore } from '../../src/deliver/unit-store.ts';
import { TidemarkError } from '../../src/platform/errors.ts';

const rows = 30_000;
const at = (ordinal: number) => formatPosition({ epoch: 1, lsn: 9n, ordinal });
const range = { from: beforeEverything, to: at(rows) };

function change(ordinal: number): IncomingChange {
  return {
    topic: 0,
    position: at(ordinal),
    schemaId: 1,
    truncate: false,
    key: Buffer.from(String(ordinal)),
    value: Buffer.from(`value of ${ordinal}`.padEnd(400)),
    oldKey: null,
    oldKeyEnd: null,
    unchanged: null,
    exact: null,
  };
}

test('a disk that is full in the middle of a spill leaves every row where it can be read once there is room', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-spill-'));
  const instance = await DuckDBInstance.create(':memory:');
  let roomFor = Number.POSITIVE_INFINITY;
  const store = new UnitStore('unit', {
    connect: () => instance.connect(),
    directory,
    checkRoom() {
      if (--roomFor < 0) throw new TidemarkError('TM406', 'full');
    },
    mayHold: () => true,
  });
  try {
    for (let from = 1; from <= rows; from += 500)
      await store.append(Array.from({ length: 500 }, (_, i) => change(from + i)));
    const held = store.heldBytes;
    roomFor = 2;
    await expect(store.spilled()).rejects.toMatchObject({ code: 'TM406' });
    expect(store.heldBytes).toBeGreaterThan(0);
    expect(store.heldBytes).toBeLessThan(held);
    await expect(store.append([change(rows + 1)])).rejects.toMatchObject({ code: 'TM406' });
    await expect(store.content(range)).rejects.toMatchObject({ code: 'TM406' });
    roomFor = Number.POSITIVE_INFINITY;
    expect(await store.content(range)).toMatchObject([{ topic: 0, changes: rows, schemaId: 1 }]);
    expect(store.heldBytes).toBe(0);
    let next = 1;
    for await (const chunk of store.read(range, 0, 'position'))
      for (const { position, key, load } of chunk) {
        expect([position, key?.toString()]).toEqual([at(next), String(next)]);
        expect(load().value.toString().trimEnd()).toBe(`value of ${next++}`);
      }
    expect(next).toBe(rows + 1);
  } finally {
    await store.clear();
    instance.closeSync();
    rmSync(directory, { recursive: true, force: true });
  }
});
