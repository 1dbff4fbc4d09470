/** A record of a change topic as the store keeps it. */
import { asPosition, positionBefore } from '../connector/position.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { FetchedRecord, HeaderReceiver } from '../platform/kafka-fetch/record-set.ts';
import { schemaIdOf } from '../publish/envelope-decoder.ts';
import { header, recordFormat } from '../publish/record-format.ts';
import type { IncomingChange } from './stored-change.ts';

/** What the headers say, the first of each name. */
class ChangeHeaders implements HeaderReceiver {
  position: string | null = null;
  format: string | null = null;
  oldKey: Buffer | null = null;
  unchanged: string | null = null;
  exact: string | null = null;
  pending: string | null = null;
  eviction = false;

  header(name: string, bytes: Buffer, start: number, end: number): void {
    switch (name) {
      case header.position:
        this.position ??= bytes.toString('latin1', start, end);
        break;
      case header.format:
        this.format ??= isRecordFormat(bytes, start, end)
          ? recordFormat
          : bytes.toString('latin1', start, end);
        break;
      case header.oldKey:
        this.oldKey ??= bytes.subarray(start, end);
        break;
      case header.unchanged:
        this.unchanged ??= bytes.toString('utf8', start, end);
        break;
      case header.exact:
        this.exact ??= bytes.toString('utf8', start, end);
        break;
      case header.eviction:
        this.eviction = true;
        break;
      case header.pending:
        this.pending ??= bytes.toString('utf8', start, end);
        break;
    }
  }
}

/** No string is made of what every record says. */
function isRecordFormat(bytes: Buffer, start: number, end: number): boolean {
  return end - start === 1 && bytes[start] === recordFormatByte;
}

const recordFormatByte = recordFormat.charCodeAt(0);

/** Null for a null record. @throws TidemarkError TM206 when it is not ours */
export function readRecord(
  record: FetchedRecord,
  topicNumber: number,
  topic: string,
  destination: string,
): IncomingChange | null {
  const { key, value } = record;
  if (value === null) return null;
  const headers = new ChangeHeaders();
  record.readHeaders(headers);
  if (headers.position === null || headers.format !== recordFormat) {
    throw new TidemarkError(
      'TM206',
      `a record of ${topic} at offset ${record.offset} has an unknown format`,
      {
        remedy:
          'Only Tidemark may write to its change topics; a newer version of it must be read by a newer one.',
      },
    );
  }
  const position = asPosition(headers.position);
  const { oldKey, unchanged, exact, pending, eviction } = headers;
  // Both halves of the envelope are null only for a truncate; the unions' branches are its first two bytes.
  const truncate = value[5] === 0 && value[6] === 0;
  return {
    topic: topicNumber,
    position,
    schemaId: schemaIdOf(value),
    truncate,
    key: key && key.length > 5 && !truncate ? key.subarray(5) : null,
    value,
    oldKey: oldKey?.subarray(5) ?? null,
    // A key change is a delete and a create with the next ordinal.
    oldKeyEnd: oldKey === null ? null : positionBefore(position),
    unchanged,
    exact,
    eviction,
    pending: pending === '1' || pending === destination,
  };
}
