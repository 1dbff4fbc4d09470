/** Reads a report back, line by line, and tells whether it is whole and signed by a key that is trusted. */
import { createHash, type KeyObject } from 'node:crypto';
import { createReadStream } from 'node:fs';
import {
  countRow,
  type EvidenceHead,
  type EvidenceRow,
  type EvidenceSignature,
  type EvidenceSum,
  emptyCounts,
  evidenceFormat,
  signedBytes,
} from './format.ts';
import { isSigned, keyId } from './signing.ts';

/** A key may be long, a destination's answer too; beyond this it is no report of ours. */
const longestLine = 64 * 1024 * 1024;

export interface ReadEvidence {
  /** Null where it could not be read at all. */
  head: EvidenceHead | null;
  sum: EvidenceSum | null;
  /** Id of the key that signed it, by its own word. */
  signedBy: string | null;
  /** What is wrong with it; empty: nothing is. */
  problems: string[];
}

type Line = EvidenceHead | EvidenceRow | EvidenceSum | EvidenceSignature;

/**
 * One pass over the file.
 * @param take is given every row, before anything is known of the signature
 * @throws what the file system throws
 */
export async function readEvidence(
  file: string,
  trusted: KeyObject,
  take: (row: EvidenceRow) => void = () => {},
): Promise<ReadEvidence> {
  const read: ReadEvidence = { head: null, sum: null, signedBy: null, problems: [] };
  const digest = createHash('sha256');
  const counts = emptyCounts();
  let found = '';
  let sumLine: Buffer | null = null;
  let number = 0;
  const wrong = (what: string): ReadEvidence => ({ ...read, problems: [...read.problems, what] });
  for await (const bytes of linesOf(file)) {
    number++;
    const line = parsed(bytes);
    if (!line) return wrong(`line ${number} is no line of a report`);
    if (read.signedBy !== null) return wrong(`line ${number} stands after the signature`);
    if (number === 1) {
      if (line.kind !== 'head' || line.format !== evidenceFormat) return wrong(`it is no ${evidenceFormat}`);
      read.head = line;
    } else if (line.kind === 'row' && read.sum === null) {
      countRow(counts, line);
      take(line);
    } else if (line.kind === 'sum' && read.sum === null) {
      read.sum = line;
      sumLine = bytes;
      found = digest.copy().digest('hex');
    } else if (line.kind === 'signature' && sumLine) {
      read.signedBy = line.keyId;
      if (line.keyId !== keyId(trusted))
        read.problems.push(`it is signed by key ${line.keyId}, not by ${keyId(trusted)}`);
      else if (!isSigned(signedBytes(sumLine), line.signature, trusted))
        read.problems.push('its signature is not of that key and these lines');
    } else return wrong(`line ${number} stands where it should not`);
    if (read.sum === null) digest.update(bytes);
  }
  if (!read.head) return wrong('it is empty');
  if (!read.sum || read.signedBy === null) return wrong('it is cut off: its sum or its signature is missing');
  if (found !== read.sum.digest)
    read.problems.push('lines were changed, added or removed: the digest is of others');
  const { kind: _, digest: __, ...summed } = read.sum;
  if (JSON.stringify(sorted(summed)) !== JSON.stringify(sorted(counts)))
    read.problems.push('its counts are not those of its rows');
  return read;
}

/** Its rows once more, once it was found to be whole. */
export async function* rowsOf(file: string): AsyncGenerator<EvidenceRow> {
  for await (const bytes of linesOf(file)) {
    const line = parsed(bytes);
    if (line?.kind === 'row') yield line;
  }
}

function parsed(bytes: Buffer): Line | null {
  try {
    const line: unknown = JSON.parse(bytes.toString('utf8'));
    return isLine(line) ? line : null;
  } catch {
    return null;
  }
}

const fields: Readonly<Record<Line['kind'], readonly string[]>> = {
  head: ['format', 'source', 'tables', 'from', 'to'],
  row: [
    'id',
    'schema',
    'name',
    'key',
    'deliveredTo',
    'hash',
    'hashVersion',
    'hashedColumns',
    'salt',
    'recalledAt',
  ],
  sum: ['rows', 'byTable', 'byDestination', 'digest'],
  signature: ['keyId', 'publicKey', 'signature'],
};

function isLine(line: unknown): line is Line {
  if (typeof line !== 'object' || line === null || !('kind' in line)) return false;
  const wanted = Object.hasOwn(fields, String(line.kind)) ? fields[line.kind as Line['kind']] : null;
  if (!wanted?.every((name) => Object.hasOwn(line, name))) return false;
  return line.kind !== 'row' || Array.isArray((line as EvidenceRow).deliveredTo);
}

function sorted(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .map(([name, each]) => [name, sorted(each)] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

/** With their line breaks; what follows the last one too. */
async function* linesOf(file: string): AsyncGenerator<Buffer> {
  let parts: Buffer[] = [];
  let length = 0;
  for await (const chunk of createReadStream(file, { highWaterMark: 256 * 1024 })) {
    let from = 0;
    const bytes = chunk as Buffer;
    for (;;) {
      const end = bytes.indexOf(0x0a, from);
      if (end < 0) break;
      parts.push(bytes.subarray(from, end + 1));
      yield parts.length === 1 ? parts[0]! : Buffer.concat(parts);
      parts = [];
      length = 0;
      from = end + 1;
    }
    if (from < bytes.length) {
      parts.push(bytes.subarray(from));
      length += bytes.length - from;
    }
    if (length > longestLine) break;
  }
  if (parts.length > 0) yield Buffer.concat(parts);
}
