/** Avro's primitives against avsc, and the arena: a record never moves once it is closed (invariant 9). */
import { describe, expect, it, vi } from 'vitest';
import { ByteReader, ByteWriter } from '../../src/publish/byte-writer.ts';
import { int8 } from '../../src/publish/types/integers.ts';
import { avscType } from '../fixtures/pgoutput/avro-twin.ts';
import { cases, replayable } from '../fixtures/pgoutput/replay.ts';
import { int64 } from '../fixtures/pgoutput/writer.ts';

const avroLong = avscType('long');

function written(write: (out: ByteWriter) => void): Buffer {
  const out = new ByteWriter(16);
  out.mark();
  write(out);
  return out.take();
}

vi.setConfig({ testTimeout: 60_000 });

describe('longs', () => {
  const edges = Array.from({ length: 64 }, (_, power) => 2n ** BigInt(power))
    .flatMap((n) => [-n - 1n, -n, -n + 1n, n - 1n, n, n + 1n])
    .filter((n) => BigInt.asIntN(64, n) === n);

  it.each([
    ['edges', () => edges],
    ['random', (random: () => bigint) => Array.from({ length: cases(5000, 50_000) }, random)],
  ])('bigLong and the int8 codec, %s', (_, values) =>
    replayable((prng) => {
      const random = () => BigInt.asIntN(64, prng.bytes(8).readBigUInt64BE()) >> BigInt(prng.integer(0, 63));
      for (const value of values(random)) {
        const avro = avroLong.toBuffer(value);
        expect(written((out) => out.bigLong(value))).toEqual(avro);
        expect(written((out) => int8.encode(int64(value), 0, 8, out))).toEqual(avro);
        expect(new ByteReader(avro).bigLong()).toBe(value);
        // Between −2^53 and −2^52 the sign was lost once.
        expect(int8.decode(new ByteReader(avro))).toBe(String(value));
        if (value >= -(2n ** 52n) && value <= 2n ** 52n) {
          expect(written((out) => out.long(Number(value)))).toEqual(avro);
          expect(new ByteReader(avro).long() + 0).toBe(Number(value));
        }
      }
    }),
  );
});

it('thousandfold is the long of a thousand times as much', () =>
  replayable((prng) => {
    const limit = 2n ** 63n / 1000n;
    const random = Array.from({ length: cases(5000, 50_000) }, () =>
      BigInt(prng.integer(0, 2 ** prng.integer(0, 53))),
    );
    const powers = Array.from({ length: 53 }, (_, power) => 2n ** BigInt(power)).flatMap((n) => [
      n - 1n,
      n,
      n + 1n,
    ]);
    for (const value of [...powers, ...random].filter((each) => each <= limit))
      expect(written((out) => out.thousandfold(Number(value)))).toEqual(avroLong.toBuffer(value * 1000n));
  }));

describe('the arena', () => {
  it('keeps closed runs as they are and rolls open ones back to a savepoint, while it grows', () =>
    replayable((prng) => {
      for (let i = 0; i < cases(30, 1000); i++) {
        const out = new ByteWriter(prng.pick([1, 16, 100, 4096]));
        const runs: { run: Buffer; twin: Buffer }[] = [];
        for (let r = 0; r < 50; r++) {
          let twin = Buffer.alloc(0);
          const add = (bytes: Buffer) => {
            twin = Buffer.concat([twin, bytes]);
          };
          out.mark();
          for (let step = prng.integer(0, 12); step > 0; step--) {
            const bytes = prng.bytes(prng.pick([0, 1, 39, 40, 41, 300]));
            const text = prng.pick(['', 'plain', 'ünï 🌊', 'x'.repeat(200)]);
            switch (prng.integer(0, 5)) {
              case 0:
                out.byte(bytes.length & 255);
                add(Buffer.from([bytes.length & 255]));
                break;
              case 1:
                out.raw(bytes);
                add(bytes);
                break;
              case 2:
                out.lengthPrefixed(Buffer.concat([bytes, bytes]), bytes.length, bytes.length * 2);
                add(avscType('bytes').toBuffer(bytes));
                break;
              case 3:
                out.text(text);
                add(avscType('string').toBuffer(text));
                break;
              case 4:
                out.ascii(bytes.toString('hex'));
                add(avscType('string').toBuffer(bytes.toString('hex')));
                break;
              default: {
                const savepoint = out.written;
                out.raw(bytes);
                out.text(text);
                out.truncate(savepoint);
              }
            }
          }
          runs.push({ run: out.take(), twin });
        }
        for (const { run, twin } of runs) expect(run.equals(twin)).toBe(true);
      }
    }));
});
