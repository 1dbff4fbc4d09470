/** Writes a report: lines of JSON for programs, a page for people. Neither is ever whole in memory. */
import { createHash, type KeyObject } from 'node:crypto';
import { once } from 'node:events';
import { createWriteStream, type WriteStream } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { finished } from 'node:stream/promises';
import type { Client } from 'pg';
import {
  beginReading,
  type EvidenceRange,
  type EvidenceSource,
  evidenceHead,
  evidenceRows,
} from './collect.ts';
import { countRow, type EvidenceSum, emptyCounts, lineOf, signedBytes } from './format.ts';
import { EvidencePage } from './page.ts';
import { keyId, publicText, signature } from './signing.ts';

export interface WrittenEvidence extends Omit<EvidenceSum, 'kind'> {
  file: string;
  page: string;
  keyId: string;
}

/**
 * @param path of both files, without their extensions
 * @throws TidemarkError TM505, TM507; what the file system throws. Nothing stays of a report that is not whole
 */
export async function writeEvidence(
  client: Client,
  range: EvidenceRange,
  source: EvidenceSource,
  { key, path }: { key: KeyObject; path: string },
): Promise<WrittenEvidence> {
  const [file, pageFile] = [`${path}.ndjson`, `${path}.html`];
  const [lines, page] = [new Output(`${file}.part`), new Output(`${pageFile}.part`)];
  try {
    await beginReading(client);
    const head = await evidenceHead(client, range, source);
    const digest = createHash('sha256');
    const write = async (line: Buffer) => {
      digest.update(line);
      await lines.write(line);
    };
    await write(lineOf(head));
    const shown = new EvidencePage(head);
    await page.write(shown.head());
    const counts = emptyCounts();
    for await (const row of evidenceRows(client, range)) {
      countRow(counts, row);
      await write(lineOf(row));
      const text = shown.row(row);
      if (text !== '') await page.write(text);
    }
    await client.query('commit');
    const sum: EvidenceSum = { kind: 'sum', ...counts, digest: digest.digest('hex') };
    const sumLine = lineOf(sum);
    const seal = {
      kind: 'signature',
      algorithm: 'ed25519',
      keyId: keyId(key),
      publicKey: publicText(key),
      signature: signature(signedBytes(sumLine), key),
    } as const;
    await lines.write(Buffer.concat([sumLine, lineOf(seal)]));
    await page.write(shown.end(sum, seal, file));
    await Promise.all([lines.end(), page.end()]);
    await rename(`${file}.part`, file);
    await rename(`${pageFile}.part`, pageFile);
    const { kind: _, ...summed } = sum;
    return { ...summed, file, page: pageFile, keyId: seal.keyId };
  } catch (error) {
    await client.query('rollback').catch(() => {});
    for (const output of [lines, page]) await output.discard();
    throw error;
  }
}

class Output {
  readonly #path: string;
  readonly #stream: WriteStream;

  constructor(path: string) {
    this.#path = path;
    // Who may read the source's keys and salts may read this, nobody else.
    this.#stream = createWriteStream(path, { mode: 0o600 });
    this.#stream.on('error', () => {});
  }

  async write(content: Buffer | string): Promise<void> {
    if (this.#stream.errored) throw this.#stream.errored;
    if (!this.#stream.write(content)) await once(this.#stream, 'drain');
  }

  async end(): Promise<void> {
    this.#stream.end();
    await finished(this.#stream);
  }

  async discard(): Promise<void> {
    this.#stream.destroy();
    await rm(this.#path, { force: true });
  }
}
