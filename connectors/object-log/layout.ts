/**
 * Names of objects, relative to the destination's URL:
 *
 *   <table>/data/tenant=<tenant>/date=YYYY-MM-DD/<sequence>-<fencing token>-<nonce>-<part>.<extension>
 *   <table>/_manifests/<sequence>.json            the Window counts from the moment this exists
 *   <table>/_manifests/<sequence>.fence-<token>   a newer owner adopted that Window
 *   <table>/_attempts/<sequence>-<token>-<nonce>.json  the data objects an attempt is about to write
 *   <table>/_latest.sql
 */
const unsafe = /[^A-Za-z0-9_-]/gu;

function percentEncode(text: string): string {
  return text.replace(unsafe, (char) =>
    [...Buffer.from(char, 'utf8')]
      .map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`)
      .join(''),
  );
}

/** The folder of a table: the unit's name, percent-encoded except for the dots between its parts. */
export function tableFolder(unit: string): string {
  const encoded = unit.split('.').map(percentEncode).join('.');
  return encoded.startsWith('.') ? `%2E${encoded.slice(1)}` : encoded;
}

/**
 * The tenant as one path segment that neither the file system, S3 nor Hive-style readers can misread.
 * `undefined` (no tenant column, or a truncate) is `__none__`, NULL is `__null__`, empty is `__empty__`; a real
 * tenant that begins with two underscores has the first one encoded. Segments over 180 bytes are shortened to a
 * prefix, `~` and 32 digits of hash; the manifest holds the tenant itself.
 */
export function tenantSegment(tenant: string | null | undefined, sha256: (text: string) => string): string {
  if (tenant === undefined) return '__none__';
  if (tenant === null) return '__null__';
  if (tenant === '') return '__empty__';
  let encoded = percentEncode(tenant);
  if (encoded.startsWith('__')) encoded = `%5F${encoded.slice(1)}`;
  // `~` is never produced by the encoding, so a shortened name cannot meet a real one.
  return encoded.length <= 180
    ? encoded
    : `${encoded.slice(0, 100).replace(/%.?$/, '')}~${sha256(tenant).slice(0, 32)}`;
}

/** 16 decimal digits, so that names sort as numbers. */
export function sequenceText(sequence: number): string {
  return String(sequence).padStart(16, '0');
}

export interface AttemptName {
  sequence: number;
  fencingToken: bigint;
  /** Random, 12 hexadecimal digits: tells two attempts with the same token apart. */
  nonce: string;
}

function attemptText({ sequence, fencingToken, nonce }: AttemptName): string {
  return `${sequenceText(sequence)}-${fencingToken}-${nonce}`;
}

/** Relative to the table's folder. */
export function dataPath(
  attempt: AttemptName,
  tenant: string,
  date: string,
  part: number,
  extension: string,
): string {
  return `data/tenant=${tenant}/date=${date}/${attemptText(attempt)}-${part}.${extension}`;
}

export function manifestKey(unit: string, sequence: number): string {
  return `${manifestFolder(unit)}${sequenceText(sequence)}.json`;
}

export function manifestFolder(unit: string): string {
  return `${tableFolder(unit)}/_manifests/`;
}

export function fenceKey(unit: string, sequence: number, token: bigint): string {
  return `${manifestFolder(unit)}${sequenceText(sequence)}.fence-${token}`;
}

export function attemptFolder(unit: string): string {
  return `${tableFolder(unit)}/_attempts/`;
}

export function attemptKey(unit: string, attempt: AttemptName): string {
  return `${attemptFolder(unit)}${attemptText(attempt)}.json`;
}

export function latestSqlKey(unit: string): string {
  return `${tableFolder(unit)}/_latest.sql`;
}

/** What a name in `_manifests/` says; null for a name this version does not write. */
export function parseManifestKey(key: string): { sequence: number; fence: bigint | null } | null {
  const match = /\/(\d{16})\.(?:json|fence-(\d+))$/.exec(key);
  if (!match) return null;
  return { sequence: Number(match[1]), fence: match[2] === undefined ? null : BigInt(match[2]) };
}

export function parseAttemptKey(key: string): AttemptName | null {
  const match = /\/(\d{16})-(\d+)-([0-9a-f]{12})\.json$/.exec(key);
  return match ? { sequence: Number(match[1]), fencingToken: BigInt(match[2]!), nonce: match[3]! } : null;
}
