/** One file of several: unpacked and packed again, because readers may stop after a file's first compressed stream. */
import { createReadStream, createWriteStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { MergeFiles } from '../../object-log/format.ts';
import { compressor, decompressor } from './compressor.ts';
import type { Compression } from './options.ts';

const newline = 10;

/** @throws TidemarkError TM901 where the sources do not have the rows that the manifests say. */
export async function mergeJsonl(
  { sources, target, rows }: MergeFiles,
  compression: Compression,
): Promise<void> {
  let lines = 0;
  const unpacked = async function* (): AsyncIterable<Buffer> {
    for (const source of sources) {
      const stream = decompressor(compression);
      const read = pipeline(createReadStream(source), stream);
      read.catch(() => {});
      for await (const piece of stream) {
        lines += linesIn(piece as Buffer);
        yield piece as Buffer;
      }
      await read;
    }
  };
  await pipeline(unpacked, compressor(compression), createWriteStream(target));
  if (lines !== rows) {
    throw new TidemarkError('TM901', `files with ${rows} rows by their manifests have ${lines}`);
  }
}

function linesIn(piece: Buffer): number {
  let lines = 0;
  for (let at = piece.indexOf(newline); at !== -1; at = piece.indexOf(newline, at + 1)) lines += 1;
  return lines;
}
