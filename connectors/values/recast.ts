/** Postgres' own cast of a value's text to a column's new type, as far as the text alone tells. */
import { sameText } from '../../src/connector/recast.ts';
import type { ColumnShape } from '../../src/connector/shape.ts';
import { postgresFloat } from '../object-log/postgres-float.ts';

type Recast = (text: string) => string;

const integer = /^(smallint|integer|bigint)$/;
const unlimitedText = /^(text|character varying)$/;
const asIs: Recast = (text) => text;

/** Null where this does not know the cast. */
export function recast(before: ColumnShape, after: ColumnShape): Recast | null {
  const [from, to] = [before.base ?? before.type, after.base ?? after.type];
  if (from === to || sameText(before, after)) return asIs;
  if (integer.test(from) && integer.test(to)) return asIs;
  if (unlimitedText.test(to)) return toText(from);
  const target = /^numeric(?:\(\d+,(-?\d+)\))?$/.exec(to);
  const source = /^numeric\(\d+,(-?\d+)\)$/.exec(from);
  if (target && (integer.test(from) || source)) {
    const scale = Number(target[1] ?? source?.[1] ?? 0);
    const had = Number(source?.[1] ?? 0);
    if (scale < had) return null;
    const zeros = '0'.repeat(scale - had);
    return (text) => (zeros === '' || text === 'NaN' ? text : `${text}${had === 0 ? '.' : ''}${zeros}`);
  }
  if (integer.test(from) && to === 'double precision') return (text) => postgresFloat(Number(text), 'double');
  if (from === 'date' && /^timestamp(\(\d\))? without time zone$/.test(to))
    return (text) => (/^-?infinity$/.test(text) ? text : text.replace(/^\S+/, '$& 00:00:00'));
  // Carried as text: what no cast is known for stays as Postgres printed it before.
  return after.carried ? asIs : null;
}

function toText(from: string): Recast | null {
  if (from === 'boolean') return (text) => (text === 't' ? 'true' : 'false');
  if (/^character\(/.test(from)) return (text) => text.replace(/ +$/, '');
  if (from === 'inet')
    return (text) => (text.includes('/') ? text : `${text}/${text.includes(':') ? 128 : 32}`);
  return asIs;
}
