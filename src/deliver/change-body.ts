/** How the store keeps what a record says in headers: beside the value, as bytes. */
import type { ChangeBody } from './stored-change.ts';

/** Null where they say nothing, as nearly always. */
export function packedHeaders({
  unchanged,
  exact,
  pending = false,
}: Pick<ChangeBody, 'unchanged' | 'exact'> & { pending?: boolean | undefined }): Buffer | null {
  if (unchanged === null && exact === null && !pending) return null;
  return Buffer.from(JSON.stringify([unchanged, exact, pending]));
}

/** @param headers what `packedHeaders` gave, or nothing */
export function bodyOf(value: Buffer, headers: Buffer): ChangeBody {
  if (headers.length === 0) return { value, unchanged: null, exact: null };
  const [unchanged, exact, pending] = JSON.parse(headers.toString()) as [
    string | null,
    string | null,
    boolean,
  ];
  return { value, unchanged, exact, pending };
}
