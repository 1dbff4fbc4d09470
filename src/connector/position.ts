/**
 * Position: `epoch / commit LSN / ordinal`, the total order over all Changes of a source.
 *
 * Text form: `EEEEEEEE/LLLLLLLLLLLLLLLL/OOOOOOOOOOOOOOOO`, upper-case hexadecimal of fixed width (8, 16 and 16
 * digits, 42 characters), so that comparing the text, the bytes or the numbers gives the same order.
 * Ordinals start at 1 within a Transaction; ordinal 0 is the point just before the Transaction that commits at
 * that LSN, which is always a transaction boundary.
 */
declare const positionBrand: unique symbol;
export type Position = string & { readonly [positionBrand]: true };

export interface PositionParts {
  /** Generation of the source: grows with a new system identifier, a forked timeline or a recreated slot. */
  epoch: number;
  /** WAL location of the commit record (its first byte). */
  lsn: bigint;
  /** 1-based number of the Change within its Transaction; 0 is just before the Transaction. */
  ordinal: number;
}

/** Length of every Position in characters. */
export const positionLength = 42;

export function formatPosition({ epoch, lsn, ordinal }: PositionParts): Position {
  return `${positionPrefix(epoch, lsn)}${ordinalText(ordinal)}` as Position;
}

/** The part of a Position that all Changes of one Transaction share, with the trailing slash. */
export function positionPrefix(epoch: number, lsn: bigint): string {
  return `${epoch.toString(16).toUpperCase().padStart(8, '0')}/${lsn.toString(16).toUpperCase().padStart(16, '0')}/`;
}

export function ordinalText(ordinal: number): string {
  return ordinal.toString(16).toUpperCase().padStart(16, '0');
}

/** @throws RangeError when the text is not a Position of this format. */
export function parsePosition(text: string): PositionParts {
  asPosition(text);
  return {
    epoch: Number.parseInt(text.slice(0, 8), 16),
    lsn: BigInt(`0x${text.slice(9, 25)}`),
    ordinal: Number(BigInt(`0x${text.slice(26)}`)),
  };
}

/** Of the Change before, in the same Transaction; of its first one: the point before the Transaction. */
export function positionBefore(position: Position): Position {
  const parts = parsePosition(position);
  return formatPosition({ ...parts, ordinal: parts.ordinal - 1 });
}

/** Trusts a text that was validated where it entered the process (a header or ledger row that we wrote). */
export function asPosition(text: string): Position {
  if (!isPosition(text)) throw new RangeError(`not a Position: ${JSON.stringify(text.slice(0, 60))}`);
  return text as Position;
}

/** A regular expression would cost five times as much, and every record is asked. */
function isPosition(text: string): boolean {
  if (text.length !== positionLength) return false;
  for (let i = 0; i < positionLength; i++) {
    const code = text.charCodeAt(i);
    if (i === 8 || i === 25) {
      if (code !== 47) return false;
    } else if (!((code >= 48 && code <= 57) || (code >= 65 && code <= 70))) return false;
  }
  return true;
}

/** Before every Position of every source. */
export const beforeEverything = formatPosition({ epoch: 0, lsn: 0n, ordinal: 0 });

/** Postgres' own spelling of an LSN, for example `0/16B3748`. */
export function formatLsn(lsn: bigint): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}`;
}

export function parseLsn(text: string): bigint {
  const match = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(text);
  if (!match) throw new RangeError(`not an LSN: ${JSON.stringify(text.slice(0, 40))}`);
  return (BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`);
}
