/** tsvector and tsquery: their binary forms as tsvector.c and tsquery.c print them. */
import { TidemarkError } from '../../platform/errors.ts';
import type { BinaryText } from './codec.ts';

function quoteLexeme(lexeme: string): string {
  return `'${lexeme.replace(/['\\]/g, '$&$&')}'`;
}

/** Number of lexemes; of each its text, ended by a zero byte, and its positions: 2 bits of weight, 14 of place. */
export const tsvectorText: BinaryText = (bytes, start) => {
  const count = bytes.readUInt32BE(start);
  const entries: string[] = [];
  let at = start + 4;
  for (let i = 0; i < count; i++) {
    const end = bytes.indexOf(0, at);
    const lexeme = quoteLexeme(bytes.toString('utf8', at, end));
    const positions = bytes.readUInt16BE(end + 1);
    at = end + 3;
    const places: string[] = [];
    for (let p = 0; p < positions; p++, at += 2) {
      const entry = bytes.readUInt16BE(at);
      places.push(`${entry & 0x3fff}${['', 'C', 'B', 'A'][entry >> 14]}`);
    }
    entries.push(places.length > 0 ? `${lexeme}:${places.join(',')}` : lexeme);
  }
  return entries.join(' ');
};

const not = 1;
const and = 2;
const or = 3;
const phrase = 4;
/** By operator: phrase binds tighter than and, and that tighter than or. */
const priorities = [0, 4, 2, 1, 3];

/**
 * Number of items, then the items in prefix order, the right operand first. An operand: 1, weights as a bit mask,
 * whether it is a prefix, text ended by a zero byte. An operator: 2, which, and of a phrase the distance.
 */
export const tsqueryText: BinaryText = (bytes, start) => {
  if (bytes.readUInt32BE(start) === 0) return '';
  let at = start + 4;
  const infix = (parentPriority: number, rightOfPhrase: boolean): string => {
    const kind = bytes[at++];
    if (kind === 1) {
      const weights = bytes[at]!;
      const prefix = bytes[at + 1]! !== 0;
      const end = bytes.indexOf(0, at + 2);
      const text = quoteLexeme(bytes.toString('utf8', at + 2, end));
      at = end + 1;
      if (weights === 0 && !prefix) return text;
      const letters = [...'ABCD'].filter((_, i) => weights & (8 >> i));
      return `${text}:${prefix ? '*' : ''}${letters.join('')}`;
    }
    if (kind !== 2)
      throw new TidemarkError('TM206', `a tsquery has an item of kind ${kind}, which is not known`);
    const operator = bytes[at++]!;
    const priority = priorities[operator];
    if (!priority) throw new TidemarkError('TM206', `a tsquery has operator ${operator}, which is not known`);
    if (operator === not) {
      const operand = infix(priority, false);
      return priority < parentPriority ? `( !${operand} )` : `!${operand}`;
    }
    let sign = operator === and ? '&' : operator === or ? '|' : '<->';
    if (operator === phrase) {
      const distance = bytes.readInt16BE(at);
      at += 2;
      if (distance !== 1) sign = `<${distance}>`;
    }
    const right = infix(priority, operator === phrase);
    const left = infix(priority, false);
    const text = `${left} ${sign} ${right}`;
    return priority < parentPriority || (operator === phrase && rightOfPhrase) ? `( ${text} )` : text;
  };
  return infix(-1, false);
};
