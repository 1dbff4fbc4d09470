/**
 * Batches against a model: records by partition in lists, with Changes taken back and batches cut at boundaries at
 * random. What comes out is read by kafkajs' decoder, and its checksum is computed anew.
 */
import { createRequire } from 'node:module';
import { crc32c } from '@node-rs/crc32';
import { describe, expect, it } from 'vitest';
import type { Position } from '../../src/connector/position.ts';
import '../../src/platform/kafka.ts';
import { Batch } from '../../src/publish/batch.ts';
import { encodeRecordBatch } from '../../src/publish/record-batch.ts';
import { type HeaderValue, type RecordRun, readRecords } from '../../src/publish/record-run.ts';
import type { Prng } from '../../src/sample/prng.ts';
import { cases, replayable } from '../fixtures/pgoutput/replay.ts';

const require = createRequire(import.meta.url);
const Decoder = require('kafkajs/src/protocol/decoder');
const decodeBatch = require('kafkajs/src/protocol/recordBatch/v0/decoder');

/** As text, so that models compare by value. */
type Model = Map<string, string[]>;

function anyBytes(prng: Prng): Buffer {
  const length = prng.pick([0, 1, 30, 63, 64, 200, 8191, 8192, prng.integer(0, 20_000)]);
  return Buffer.alloc(length, prng.integer(0, 255));
}

/** A record, by one of the two ways; beside it what it is. */
function write(prng: Prng, batch: Batch): { name: string; text: string } {
  const topic = prng.pick(['a', 'b']);
  const partition = prng.integer(0, 2);
  const key = prng.chance(0.3) ? null : anyBytes(prng).subarray(0, 300);
  const value = prng.chance(0.2) ? null : anyBytes(prng);
  const headers = Array.from({ length: prng.integer(0, 3) }, (_, i): [string, HeaderValue] => [
    `h${i}`,
    prng.chance(0.5) ? 'ä'.repeat(prng.integer(0, 90)) : prng.bytes(3),
  ]);
  if (prng.chance(0.5)) batch.add(topic, partition, key, value, headers);
  else {
    const run = batch.run(topic, partition);
    run.begin(key, key?.length ?? -1);
    if (value) {
      run.beginValue();
      // In pieces, so that the buffer grows inside a value.
      for (let at = 0; at < value.length; at += 100) run.out.raw(value, at, Math.min(at + 100, value.length));
      expect(run.endValue()).toBe(value.length);
    } else run.noValue();
    run.out.long(headers.length);
    for (const [name, of] of headers) {
      run.out.text(name);
      const bytes = Buffer.from(of as string);
      run.out.lengthPrefixed(bytes, 0, bytes.length);
    }
    batch.wrote(run.end());
  }
  return { name: `${topic}/${partition}`, text: textOf(key, value, headers) };
}

function textOf(
  key: Buffer | null,
  value: Buffer | null,
  headers: Iterable<readonly [string, HeaderValue]>,
): string {
  const hex = (bytes: Buffer | null) => bytes?.toString('hex') ?? null;
  return JSON.stringify([
    hex(key),
    hex(value),
    [...headers].map(([n, v]) => [n, hex(Buffer.from(v as string))]),
  ]);
}

async function read(runs: readonly RecordRun[]): Promise<Model> {
  const model: Model = new Map();
  for (const run of runs) {
    if (run.count === 0) continue;
    const name = `${run.topic}/${run.partition}`;
    const ours = [...readRecords(run)].map(({ key, value, headers }) =>
      textOf(key, value, Object.entries(headers)),
    );
    const identity = { producerId: 7n, producerEpoch: 1, baseSequence: 3, timestampMs: 5 };
    const bytes = await encodeRecordBatch(run, identity, 'none');
    expect(bytes.readUInt32BE(17)).toBe(crc32c(bytes.subarray(21)) >>> 0);
    const decoder = new Decoder(bytes);
    const decoded = await decodeBatch({
      readInt64: () => decoder.readInt64(),
      readInt32: () => decoder.readInt32(),
      slice: (length: number) => decoder.slice(length),
      forward: (length: number) => decoder.forward(length),
    });
    // kafkajs reads the magic byte with the batch.
    expect(decoded.lastOffsetDelta).toBe(run.count - 1);
    const theirs = decoded.records.map(
      (
        record: { key: Buffer | null; value: Buffer | null; headers: Record<string, Buffer>; offset: string },
        i: number,
      ) => {
        expect(Number(record.offset)).toBe(i);
        return textOf(record.key, record.value, Object.entries(record.headers));
      },
    );
    expect(theirs).toEqual(ours);
    model.set(name, [...(model.get(name) ?? []), ...ours]);
  }
  return model;
}

describe('batches', () => {
  it('hold what was written and kept, in order, and are cut at the last boundary', () =>
    replayable(async (prng) => {
      for (let t = 0; t < cases(15, 60); t++) {
        let batch = new Batch(0);
        const sent: Model = new Map();
        const kept: Model = new Map();
        const keep = (model: Model, name: string, texts: string[]) =>
          model.set(name, [...(model.get(name) ?? []), ...texts]);
        let open: { name: string; text: string }[] = [];
        let whole: { name: string; text: string }[] = [];
        const flush = async () => {
          const before = batch.bytes;
          const [first, rest] = batch.splitAtBoundary(0);
          expect(first.bytes + rest.bytes).toBe(before);
          expect(first.records).toBe(whole.length);
          expect(rest.records).toBe(open.length);
          for (const [name, texts] of await read(first.runs)) keep(sent, name, texts);
          for (const { name, text } of whole) keep(kept, name, [text]);
          whole = [];
          batch = rest;
          first.release();
          expect(sent).toEqual(kept);
        };
        for (let i = prng.integer(1, 120); i > 0; i--) {
          batch.savepoint();
          const change = Array.from({ length: prng.integer(1, 3) }, () => write(prng, batch));
          if (prng.chance(0.15)) batch.rollback();
          else open.push(...change);
          if (prng.chance(0.2)) {
            batch.markBoundary('' as Position, 0n, 0n);
            whole.push(...open);
            open = [];
          }
          if (batch.boundary && prng.chance(0.1)) await flush();
        }
        batch.markBoundary('' as Position, 0n, 0n);
        whole.push(...open);
        open = [];
        await flush();
      }
    }));
});
