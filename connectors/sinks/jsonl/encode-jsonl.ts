/**
 * Rows to compressed JSON Lines. A file is one compressed stream: many readers stop, without a word, after the first of
 * several zstd frames. So that memory does not grow with the number of partitions, the first of them are compressed as
 * they come and the rest is spooled, and compressed one after the other at the end.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { appendFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { ChangeRow } from '../../object-log/change-row.ts';
import {
  type DataFile,
  type FileEncoder,
  type FileEncoderSettings,
  maxFileBytes,
} from '../../object-log/data-file.ts';
import { partitionOf } from '../../object-log/partition.ts';
import { compressor, extensions } from './compressor.ts';
import { JsonLines } from './json-line.ts';
import type { Compression } from './options.ts';

/** Files compressed side by side: each takes some MiB. */
const open = 8;
/** Bytes of lines held over all files, and in one of them, before they go on. */
const heldInAll = 32 * 1024 * 1024;
const heldInOne = 256 * 1024;
/** From here on a line's bytes are counted, not estimated. */
const longLine = 256 * 1024;

interface Part {
  file: DataFile;
  longestLine: number;
  /** Lines of the call that is under way. As text they take several times their bytes, so they do not stay. */
  lines: string;
  pieces: Buffer[];
  /** Bytes in `pieces`. */
  held: number;
  /** Characters of text of its rows. */
  size: number;
  stream: Writable | null;
  /** Of the stream, once everything is written. */
  done: Promise<void>;
  /** Lines as they are, where it is not compressed yet. */
  spool: string | null;
}

export class JsonlEncoder implements FileEncoder {
  readonly #folder: string;
  readonly #compression: Compression;
  readonly #lines: JsonLines;
  readonly #parts: Part[] = [];
  /** The part that takes a partition's next row. */
  readonly #current = new Map<string, Part>();
  #held = 0;

  constructor({ columns, keyColumns, folder }: FileEncoderSettings, compression: Compression) {
    this.#folder = folder;
    this.#compression = compression;
    this.#lines = new JsonLines(columns, keyColumns);
  }

  async write(rows: readonly ChangeRow[]): Promise<void> {
    try {
      const touched = new Set<Part>();
      for (const row of rows) {
        const part = this.#partFor(row);
        const line = this.#lines.line(row);
        part.lines += line;
        part.size += row.size;
        part.file.rows += 1;
        part.longestLine = Math.max(part.longestLine, bytesOf(line));
        if (part.lines.length < heldInOne) touched.add(part);
        else await this.#settle(part);
      }
      for (const part of touched) await this.#settle(part);
      if (this.#held >= heldInAll) for (const part of this.#parts) await this.#flush(part);
    } catch (error) {
      throw failure(error);
    }
  }

  async finish(): Promise<DataFile[]> {
    try {
      for (const part of this.#parts) await this.#end(part);
      for (const part of this.#parts) await this.#compress(part);
    } catch (error) {
      throw failure(error);
    }
    return this.#parts.map(({ file, longestLine }) => ({ ...file, longestLine }));
  }

  async close(): Promise<void> {
    for (const { stream, done } of this.#parts) {
      stream?.destroy();
      await done.catch(() => {});
    }
  }

  #partFor(row: ChangeRow): Part {
    const identity = partitionOf(row);
    let part = this.#current.get(identity);
    if (part === undefined || part.size >= maxFileBytes) {
      const { tenant, date } = row;
      const path = join(this.#folder, String(this.#parts.length));
      const localPath = `${path}.${extensions[this.#compression]}`;
      part = {
        file: { localPath, rows: 0, bytes: 0, tenant, date },
        longestLine: 0,
        lines: '',
        pieces: [],
        held: 0,
        size: 0,
        stream: null,
        done: Promise.resolve(),
        spool: this.#parts.length < open ? null : `${path}.jsonl`,
      };
      if (part.spool === null) {
        const stream = compressor(this.#compression);
        part.stream = stream;
        part.done = pipeline(stream, createWriteStream(localPath));
        // Looked at when the stream is written to or ended; until then nobody waits for it.
        part.done.catch(() => {});
      }
      this.#parts.push(part);
      this.#current.set(identity, part);
    }
    return part;
  }

  async #settle(part: Part): Promise<void> {
    const piece = Buffer.from(part.lines);
    part.lines = '';
    part.pieces.push(piece);
    part.held += piece.length;
    this.#held += piece.length;
    if (part.held >= heldInOne) await this.#flush(part);
  }

  async #flush(part: Part): Promise<void> {
    if (part.held === 0) return;
    const bytes = Buffer.concat(part.pieces);
    this.#held -= part.held;
    part.pieces = [];
    part.held = 0;
    if (part.spool === null) await write(part.stream!, part.done, bytes);
    else await appendFile(part.spool, bytes);
  }

  async #end(part: Part): Promise<void> {
    await this.#flush(part);
    part.stream?.end();
    await part.done;
  }

  async #compress({ file, spool }: Part): Promise<void> {
    if (spool !== null) {
      await pipeline(
        createReadStream(spool),
        compressor(this.#compression),
        createWriteStream(file.localPath),
      );
      await rm(spool);
    }
    file.bytes = (await stat(file.localPath)).size;
  }
}

/** Writes, and waits where the stream is full. */
async function write(stream: Writable, done: Promise<void>, bytes: Buffer): Promise<void> {
  if (stream.write(bytes)) return;
  await Promise.race([new Promise<void>((resolve) => stream.once('drain', resolve)), done]);
}

/** Bytes of UTF-8, or a little more than that. */
function bytesOf(line: string): number {
  return line.length < longLine ? line.length * 3 : Buffer.byteLength(line);
}

function failure(error: unknown): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const code = (error as NodeJS.ErrnoException | null)?.code;
  return new TidemarkError('TM406', `cannot write a file to the scratch directory: ${code ?? 'unknown'}`, {
    remedy: 'Free space in the scratch directory (deliver.spill.directory) and check its rights.',
  });
}
