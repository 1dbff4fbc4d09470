/** The codec of a column that leaves Postgres hashed or masked: whatever its type, text goes out. */
import type { ProtectingPolicy } from '../platform/column-policy.ts';
import type { ColumnProtector } from '../replicate/column-protection.ts';
import type { Codec } from './types/codec.ts';
import { text } from './types/strings.ts';

/** The tenant of the row that is being encoded. */
export interface RowTenant {
  tenant: string | null;
}

/** @param own codec of the column's type in Postgres */
export function protectedCodec(
  own: Codec,
  policy: ProtectingPolicy,
  protector: ColumnProtector,
  row: RowTenant,
): Codec {
  const protect = (bytes: Buffer, start: number, end: number) =>
    protector.protect(policy, own.text(bytes, start, end), row.tenant);
  return {
    schema: text.schema,
    // Never false: the exactness header would carry the value.
    encode(bytes, start, end, out) {
      out.text(protect(bytes, start, end));
      return true;
    },
    encodeText(bytes, start, end, out) {
      out.text(protector.protect(policy, bytes.toString('utf8', start, end), row.tenant));
      return true;
    },
    text: protect,
    decode: text.decode,
  };
}
