/** Which values a typed column of DuckDB's, and of a Parquet file that it writes, gives back as they were. */
import type { Storage } from '../object-log/storage.ts';

/** Whether the native column gives this value's text back. Dates and timestamps are native in the years 1 to 9999. */
export function fitsDuckdb(storage: Storage, value: string): boolean {
  switch (storage.kind) {
    case 'real':
    case 'double':
      // DuckDB's Parquet dictionary takes -0 and 0 for one value and writes whichever came first.
      return value !== '-0';
    case 'decimal':
      return fitsDecimal(storage, value);
    case 'date':
      return value.length === 10 && value.charCodeAt(4) === 45;
    case 'timestamp':
    case 'timestamptz':
      // 45 is `-`: five-digit years, `infinity` and `-infinity` have something else there.
      return value.charCodeAt(4) === 45 && value.charCodeAt(value.length - 1) !== 67;
    default:
      return true;
  }
}

/** Whether there are values that do not fit. */
export function isLossy({ kind }: Pick<Storage, 'kind'>): boolean {
  return ['real', 'double', 'decimal', 'date', 'timestamp', 'timestamptz'].includes(kind);
}

/** Digits only, exactly the column's scale, and not more digits than the type holds: NaN and Infinity are out. */
function fitsDecimal({ integerDigits, scale }: Storage, value: string): boolean {
  const start = value.charCodeAt(0) === 45 ? 1 : 0;
  const first = value.charCodeAt(start);
  if (!(first >= 48 && first <= 57)) return false;
  const point = scale === 0 ? value.length : value.length - scale - 1;
  if (scale > 0 && value.charCodeAt(point) !== 46) return false;
  if (scale === 0 && value.includes('.')) return false;
  return point > start && point - start <= integerDigits;
}
