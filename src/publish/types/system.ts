/** Types of Postgres' own bookkeeping that a table may have all the same. */
import type { BinaryText } from './codec.ts';

/** Two 32-bit halves, hexadecimal without padding. */
export const lsnText: BinaryText = (bytes, start) =>
  `${bytes.readUInt32BE(start).toString(16)}/${bytes.readUInt32BE(start + 4).toString(16)}`.toUpperCase();

export const xid8Text: BinaryText = (bytes, start) => String(bytes.readBigUInt64BE(start));

/** Block and item. */
export const tidText: BinaryText = (bytes, start) =>
  `(${bytes.readUInt32BE(start)},${bytes.readUInt16BE(start + 4)})`;

/** pg_snapshot and txid_snapshot: number of running transactions, xmin, xmax, the running ones. */
export const snapshotText: BinaryText = (bytes, start) => {
  const running = Array.from({ length: bytes.readInt32BE(start) }, (_, i) =>
    bytes.readBigInt64BE(start + 20 + i * 8),
  );
  return `${bytes.readBigInt64BE(start + 4)}:${bytes.readBigInt64BE(start + 12)}:${running.join(',')}`;
};

/** "char": one byte; since Postgres 16 one outside ASCII is an octal escape. */
export const charText: BinaryText = (bytes, start) => {
  const byte = bytes[start]!;
  if (byte === 0) return '';
  return byte < 128 ? String.fromCharCode(byte) : `\\${byte.toString(8)}`;
};

/** A version byte, 1, and the text: jsonpath, ltree, lquery, ltxtquery. */
export const versionedText: BinaryText = (bytes, start, end) => bytes.toString('utf8', start + 1, end);

/** int2vector and oidvector: a one-dimensional array without nulls, separated by spaces. */
export function vectorText(element: BinaryText): BinaryText {
  return (bytes, start) => {
    if (bytes.readInt32BE(start) === 0) return '';
    const items: string[] = [];
    let at = start + 20;
    for (let i = bytes.readInt32BE(start + 12); i > 0; i--) {
      const size = bytes.readInt32BE(at);
      items.push(element(bytes, at + 4, at + 4 + size));
      at += 4 + size;
    }
    return items.join(' ');
  };
}
