/** Names at the destination, and how SQL spells them. */
import { createHash } from 'node:crypto';
import type { TableId } from '../../../src/connector/shape.ts';

/** An identifier between backquotes. */
export function quoteName(name: string): string {
  return `\`${name.replace(/[\\`]/g, '\\$&')}\``;
}

export function quoteText(text: string): string {
  return `'${text.replace(/[\\']/g, '\\$&')}'`;
}

/** A server keeps a table's definition in a file of its name, and file names have 255 bytes. */
const longestFileName = 200;

/**
 * The view that shows a table: `schema.table`, with `%` and the dots of its parts written `%25` and `%2E`, so that two
 * tables never meet. What would make too long a file name is cut and ends in a hash.
 */
export function viewName({ schema, name }: TableId): string {
  const written = (part: string) => part.replace(/%/g, '%25').replace(/\./g, '%2E');
  const whole = `${written(schema)}.${written(name)}`;
  if (fileNameLength(whole) <= longestFileName) return whole;
  let cut = whole;
  while (fileNameLength(cut) > longestFileName - 20) cut = [...cut].slice(0, -1).join('');
  return `${cut}%${hash16(whole)}`;
}

/** The view over a table's history. */
export function changesName(table: TableId): string {
  return `${viewName(table)}_changes`;
}

/** Everything but letters, digits and `_` takes three characters a byte. */
function fileNameLength(name: string): number {
  let length = 0;
  for (const byte of Buffer.from(name)) length += /[A-Za-z0-9_]/.test(String.fromCharCode(byte)) ? 1 : 3;
  return length;
}

function hash16(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

/** Where tokens of all Units stand. */
export const fencesTable = '_tidemark_fences';

/** Names of the tables behind one Unit's view. Those of an owner carry its fencing token. */
export class UnitNames {
  /** Stands in the comment of the Unit's view, and in its tables' names. */
  readonly id: string;
  readonly prefix: string;

  constructor(sourceId: string, destination: string, unit: string) {
    this.id = hash16(JSON.stringify([sourceId, destination, unit]));
    this.prefix = `_tidemark_${this.id}_`;
  }

  /** A generation of the rows; `number` tells those of one owner apart. */
  rows(token: bigint, number: string): string {
    return `${this.prefix}rows_${token}_${number}`;
  }

  stage(token: bigint): string {
    return `${this.prefix}stage_${token}`;
  }

  /** Rows that need something of the row that is there. */
  fill(token: bigint): string {
    return `${this.prefix}fill_${token}`;
  }

  /** A view before it takes its place. */
  view(token: bigint): string {
    return `${this.prefix}view_${token}`;
  }

  get changes(): string {
    return `${this.prefix}changes`;
  }

  /** Null for the table of the history, which belongs to all owners. */
  tokenOf(table: string): bigint | null {
    const found = /^(?:rows|stage|fill|view)_(\d+)(?:_|$)/.exec(table.slice(this.prefix.length));
    return found ? BigInt(found[1]!) : null;
  }
}
