/**
 * Evidence: a report of what was let go of, as lines of JSON. A head, a line for each row, a sum with the digest of every
 * byte before it, and a signature over the line of the sum. docs/retention.md, "Evidence", is for whoever reads it with
 * other tools; the format never changes under its name.
 */
import type { TableId } from '../../connector/shape.ts';

export const evidenceFormat = 'tidemark-evidence-1';

export interface EvidenceTable extends TableId {
  /** Its value schema as of the report, which says how destinations have its columns; null: it is not known any more. */
  schemaText: string | null;
}

export interface EvidenceHead {
  kind: 'head';
  format: typeof evidenceFormat;
  /** Names the canonical form that hashes are of. */
  canonicalForm: string;
  source: string;
  /** Null: every one's rows. */
  organization: string | null;
  /** Evicted from (inclusive) to (exclusive), ISO 8601 UTC. */
  from: string;
  to: string;
  madeAt: string;
  madeBy: string;
  tables: EvidenceTable[];
  /** What the policies were, by table and version, as far as rows were evicted under them. */
  policies: { table: string; version: number; changedAt: string; changedBy: string; policy: unknown }[];
  overrides: {
    id: string;
    name: string;
    table: string;
    tenant: string | null;
    reason: string;
    grantedAt: string;
    grantedBy: string;
    expiresAt: string;
  }[];
}

export interface EvidenceReceipt {
  destination: string;
  unit: string;
  mark: string | null;
  receipt: { sequence: number; position: string; commitId: string; contentHash: string } | null;
}

/** A Tombstone. */
export interface EvidenceRow extends TableId {
  kind: 'row';
  id: string;
  /** JSON array of the texts of the key's columns. */
  key: string;
  tenant: string | null;
  deliveredTo: EvidenceReceipt[];
  pinned: string | null;
  position: string;
  /** Hexadecimal; the salt is null where it was erased. */
  hash: string;
  salt: string | null;
  hashVersion: number;
  hashedColumns: string[];
  forfeited: string[];
  evictedAt: string;
  evictedBy: string;
  policyVersion: number;
  override: string | null;
  recalledAt: string | null;
  recalledBy: string | null;
  recallReason: string | null;
  /** A row of that key was evicted again later: destinations have that one. */
  superseded: boolean;
}

/** What a report counts. */
export interface EvidenceCounts {
  rows: number;
  recalled: number;
  superseded: number;
  saltErased: number;
  overridden: number;
  byTable: Record<string, number>;
  /** Rows that the Tombstones name each destination for. */
  byDestination: Record<string, number>;
}

export interface EvidenceSum extends EvidenceCounts {
  kind: 'sum';
  /** SHA-256, hexadecimal, over all bytes before this line. */
  digest: string;
}

export interface EvidenceSignature {
  kind: 'signature';
  algorithm: 'ed25519';
  /** Of the public key, see signing.ts. */
  keyId: string;
  /** SPKI, DER, base64: to tell keys apart; trust comes from elsewhere. */
  publicKey: string;
  /** Base64, over the format's name, a line break, and the line of the sum with its line break. */
  signature: string;
}

export function emptyCounts(): EvidenceCounts {
  return {
    rows: 0,
    recalled: 0,
    superseded: 0,
    saltErased: 0,
    overridden: 0,
    byTable: {},
    byDestination: {},
  };
}

export function countRow(counts: EvidenceCounts, row: EvidenceRow): void {
  counts.rows++;
  if (row.recalledAt !== null) counts.recalled++;
  if (row.superseded) counts.superseded++;
  if (row.salt === null) counts.saltErased++;
  if (row.override !== null) counts.overridden++;
  const table = `${row.schema}.${row.name}`;
  counts.byTable[table] = (counts.byTable[table] ?? 0) + 1;
  for (const { destination } of row.deliveredTo)
    counts.byDestination[destination] = (counts.byDestination[destination] ?? 0) + 1;
}

export function lineOf(record: EvidenceHead | EvidenceRow | EvidenceSum | EvidenceSignature): Buffer {
  return Buffer.from(`${JSON.stringify(record)}\n`);
}

/** What is signed. */
export function signedBytes(sumLine: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${evidenceFormat}\n`), sumLine]);
}
