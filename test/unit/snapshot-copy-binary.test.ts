/** COPY's binary format is cut into rows wherever its bytes are cut into pieces. */
import { expect, test } from 'vitest';
import { TidemarkError } from '../../src/platform/errors.ts';
import { Tuple, valueKind } from '../../src/replicate/pgoutput.ts';
import { CopyParser, CopyRows } from '../../src/replicate/snapshot/copy-binary.ts';
import type { Prng } from '../../src/sample/prng.ts';
import { replayable } from '../fixtures/pgoutput/replay.ts';

type Value = Buffer | null;

function copyBytes(rows: readonly Value[][]): Buffer {
  const parts: Buffer[] = [Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1'), Buffer.alloc(8)];
  const number = (value: number, bytes: 2 | 4) => {
    const buffer = Buffer.alloc(bytes);
    if (bytes === 2) buffer.writeInt16BE(value);
    else buffer.writeInt32BE(value);
    parts.push(buffer);
  };
  for (const row of rows) {
    number(row.length, 2);
    for (const value of row) {
      number(value === null ? -1 : value.length, 4);
      if (value) parts.push(value);
    }
  }
  number(-1, 2);
  return Buffer.concat(parts);
}

function valuesOf(rows: CopyRows): Value[][] {
  const tuple = new Tuple();
  return Array.from({ length: rows.count }, (_, i) => {
    rows.read(i, tuple);
    return Array.from({ length: tuple.count }, (_, at) =>
      tuple.kinds[at] === valueKind.null
        ? null
        : Buffer.from(tuple.bytes.subarray(tuple.starts[at], tuple.ends[at])),
    );
  });
}

const parserOf = (columns: number, maxBytes = Number.POSITIVE_INFINITY) =>
  new CopyParser(new CopyRows(columns), maxBytes);

function anyRows(prng: Prng, columns: number): Value[][] {
  return Array.from({ length: prng.integer(0, 40) }, () =>
    Array.from({ length: columns }, () => (prng.chance(0.2) ? null : prng.bytes(prng.integer(0, 60)))),
  );
}

function* pieces(prng: Prng, bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; ) {
    const length = prng.integer(1, prng.chance(0.5) ? 5 : 400);
    yield bytes.subarray(at, at + length);
    at += length;
  }
}

test('rows come back as they were, whatever the pieces', () =>
  replayable((prng) => {
    for (let i = 0; i < 20; i++) {
      const columns = prng.integer(1, 70);
      const rows = anyRows(prng, columns);
      const parser = parserOf(columns);
      const taken: Value[][] = [];
      for (const piece of pieces(prng, copyBytes(rows))) {
        // Where a socket puts its bytes, other bytes come next.
        const shared = Buffer.concat([Buffer.alloc(3, 0xff), piece, Buffer.alloc(3, 0xff)]);
        parser.take(shared, 3, 3 + piece.length);
        shared.fill(0xff);
        if (!prng.chance(0.1)) continue;
        taken.push(...valuesOf(parser.rows));
        parser.rows.clear();
      }
      parser.end();
      taken.push(...valuesOf(parser.rows));
      expect(taken).toEqual(rows);
    }
  }));

test('rows beyond the bytes are dropped from the end, and one always stays', () =>
  replayable((prng) => {
    for (let i = 0; i < 20; i++) {
      const rows = anyRows(prng, 3);
      const parser = parserOf(3, prng.integer(0, 500));
      for (const piece of pieces(prng, copyBytes(rows))) parser.take(piece);
      parser.end();
      const kept = valuesOf(parser.rows);
      expect(kept.length).toBeGreaterThanOrEqual(Math.min(1, rows.length));
      expect(kept.length + parser.dropped).toBe(rows.length);
      expect(kept).toEqual(rows.slice(0, kept.length));
    }
  }));

test('what is cut short or of another form is TM206', () => {
  const bytes = copyBytes([[Buffer.from('a')]]);
  const refusal = (run: () => void) => {
    try {
      run();
    } catch (error) {
      return error instanceof TidemarkError ? error.code : error;
    }
    return null;
  };
  const short = parserOf(1);
  short.take(bytes.subarray(0, bytes.length - 1));
  expect(refusal(() => short.end())).toBe('TM206');
  expect(refusal(() => parserOf(2).take(bytes))).toBe('TM206');
  expect(refusal(() => parserOf(1).take(Buffer.alloc(40)))).toBe('TM206');
});
