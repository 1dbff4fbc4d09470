/** What a server sends, cut anywhere, comes out as the messages that it sent; beside it pg's own parser. */
import { EventEmitter } from 'node:events';
import { createRequire } from 'node:module';
import { describe, expect, it } from 'vitest';
import { MessageFramer } from '../../src/replicate/copy-connection.ts';
import { cases, replayable } from '../fixtures/pgoutput/replay.ts';

const require = createRequire(import.meta.url);
const { parse } = require('pg-protocol') as {
  parse(
    stream: EventEmitter,
    callback: (message: { name: string; chunk?: Buffer; message?: string }) => void,
  ): void;
};

function message(code: string, content: Buffer): Buffer {
  const bytes = Buffer.alloc(5 + content.length);
  bytes.write(code, 0, 'latin1');
  bytes.writeUInt32BE(4 + content.length, 1);
  content.copy(bytes, 5);
  return bytes;
}

const notice = (text: string) => message('N', Buffer.from(`SNOTICE\0M${text}\0\0`));

describe('MessageFramer', () => {
  it('gives the same messages as pg, in order, wherever the reads end', () =>
    replayable((prng) => {
      for (let t = 0; t < cases(20, 100); t++) {
        const sent = Array.from({ length: prng.integer(1, 40) }, (_, i) =>
          prng.chance(0.2)
            ? notice(`notice ${i}`)
            : message('d', Buffer.alloc(prng.pick([0, 1, 25, 300, 8192, 131_072, 1_500_000]), i)),
        );
        const stream = Buffer.concat(sent);
        const reads: [number, number][] = [];
        for (let at = 0; at < stream.length; ) {
          const length = prng.pick(
            stream.length > 50_000 ? [3, 5000, 65_536, 131_072] : [1, 2, 4, 5, 6, 100],
          );
          reads.push([at, Math.min(at + length, stream.length)]);
          at += length;
        }
        const expected: string[] = [];
        const socket = new EventEmitter();
        const tell = (list: string[]) => (each: { name: string; chunk?: Buffer; message?: string }) =>
          list.push(
            each.chunk ? `copy ${each.chunk.length} ${each.chunk[0]}` : `${each.name} ${each.message}`,
          );
        parse(socket, tell(expected));
        const found: string[] = [];
        const rest = new EventEmitter();
        parse(rest, tell(found));
        const framer = new MessageFramer(
          (bytes, start, end) => {
            // Every byte of it.
            const content = bytes.subarray(start, end);
            expect(content.equals(Buffer.alloc(end - start, content[0] ?? 0))).toBe(true);
            found.push(`copy ${end - start} ${content[0]}`);
          },
          (other) => rest.emit('data', other),
        );
        const buffer = Buffer.alloc(131_072);
        for (const [start, end] of reads) {
          socket.emit('data', Buffer.from(stream.subarray(start, end)));
          stream.copy(buffer, 0, start, end);
          framer.read(buffer, end - start);
          // The socket's buffer is written over by the next read.
          buffer.fill(0xee);
        }
        expect(found).toEqual(expected);
        expect(found.length).toBe(sent.length);
      }
    }));
});
