/** A value outside its native type goes to `_exact` as text, with NULL in the column. */
import type { Storage } from '../../object-log/storage.ts';
import type { EncoderName } from './options.ts';

/**
 * Whether the native column gives this value's text back. Dates and timestamps are native in the years 1 to 9999.
 * parquetjs has no integers beyond 2^53, nothing before 1970 and no NaN; decimals and uuids are text there.
 */
export function fitsNatively(storage: Storage, value: string, encoder: EncoderName): boolean {
  const js = encoder === 'parquetjs';
  switch (storage.kind) {
    case 'bigint':
      return !js || value.length <= 15;
    case 'real':
    case 'double':
      // DuckDB's Parquet dictionary takes -0 and 0 for one value and writes whichever came first.
      return value !== '-0' && (!js || value !== 'NaN');
    case 'decimal':
      return fitsDecimal(storage, value);
    case 'date':
      return value.length === 10 && value.charCodeAt(4) === 45 && (!js || value >= '1970');
    case 'timestamp':
    case 'timestamptz':
      // 45 is `-`: five-digit years, `infinity` and `-infinity` have something else there.
      return (
        value.charCodeAt(4) === 45 && value.charCodeAt(value.length - 1) !== 67 && (!js || value >= '1970')
      );
    default:
      return true;
  }
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
