/** A value outside its native type goes to `_exact` as text, with NULL in the column. */

import { fitsDuckdb } from '../../duckdb/fits.ts';
import type { Storage } from '../../object-log/storage.ts';
import type { EncoderName } from './options.ts';

/** Whether the native column gives this value's text back. */
export function fitsNatively(storage: Storage, value: string, encoder: EncoderName): boolean {
  return fitsDuckdb(storage, value) && (encoder === 'duckdb' || fitsParquetjs(storage, value));
}

/** parquetjs has no integers beyond 2^53, nothing before 1970 and no NaN; decimals and uuids are text there. */
function fitsParquetjs({ kind }: Storage, value: string): boolean {
  if (kind === 'bigint') return value.length <= 15;
  if (kind === 'real' || kind === 'double') return value !== 'NaN';
  if (kind === 'date' || kind === 'timestamp' || kind === 'timestamptz') return value >= '1970';
  return true;
}
