/**
 * Changes of a column's type that leave every existing value's text as it is, so that nothing has to be known of the
 * rows: a destination casts its own column, and a reader of older records reads them as they are.
 */
import type { ColumnShape } from './shape.ts';

const integers = ['smallint', 'integer', 'bigint'];
/** Types whose text is their value, without a limit of length. */
const texts = ['text', 'character varying'];
/** Types whose cast to text is their text. */
const printed = ['uuid', 'json', 'xml', 'name'];

export function sameText(before: ColumnShape, after: ColumnShape): boolean {
  if (before.type === after.type) return true;
  const array = before.type.endsWith('[]');
  if (array !== after.type.endsWith('[]')) return false;
  const from = array ? before.type.slice(0, -2) : before.type;
  const to = array ? after.type.slice(0, -2) : after.type;
  if (integers.includes(from)) return integers.indexOf(to) > integers.indexOf(from);
  if (texts.includes(to)) {
    return (
      texts.includes(from) || printed.includes(from) || before.enum !== undefined || limit(from) !== null
    );
  }
  const [short, long] = [limit(from), limit(to)];
  if (short !== null && long !== null) return long >= short;
  const [narrow, wide] = [decimal(from), decimal(to)];
  if (narrow && wide) return wide.scale === narrow.scale && wide.precision >= narrow.precision;
  const [coarse, fine] = [instant(from), instant(to)];
  return coarse !== null && fine !== null && coarse.zone === fine.zone && fine.digits >= coarse.digits;
}

function limit(type: string): number | null {
  const match = /^character varying\((\d+)\)$/.exec(type);
  return match ? Number(match[1]) : null;
}

function decimal(type: string): { precision: number; scale: number } | null {
  const match = /^numeric\((\d+),(\d+)\)$/.exec(type);
  return match ? { precision: Number(match[1]), scale: Number(match[2]) } : null;
}

function instant(type: string): { digits: number; zone: string } | null {
  const match = /^timestamp(?:\((\d)\))? (with(?:out)? time zone)$/.exec(type);
  return match ? { digits: Number(match[1] ?? 6), zone: match[2]! } : null;
}
