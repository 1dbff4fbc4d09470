/**
 * What `--where` may say of Tombstones: conditions joined by `and`, over what a Tombstone itself knows of its row. It is a
 * language of its own: nothing of the text gets into SQL but as a parameter.
 *
 *     condition  = field operator literal | field "in" "(" literal { "," literal } ")"
 *     field      = tenant | evicted_at | policy_version | destination | a column of the key, in double quotes if need be
 *     operator   = "=" | "<>" | "<" | "<=" | ">" | ">="          literal = 'text' | number
 */
import { TidemarkError } from '../platform/errors.ts';
import type { SourceTable } from './source-table.ts';

export interface FilterCondition {
  field: string;
  /** It is a column of the key, whatever fields there are of that name. */
  quoted: boolean;
  operator: Operator;
  /** Of `in` one or more, else one. */
  literals: string[];
}

const operators = ['=', '<>', '<', '<=', '>', '>=', 'in'] as const;
type Operator = (typeof operators)[number];

const help = `--where "tenant = '42' and evicted_at >= '2026-01-01'": fields are tenant, evicted_at, policy_version, destination and the key's columns; = <> < <= > >= and in ('a', 'b'); joined by and`;

function wrong(what: string): TidemarkError {
  return new TidemarkError('TM101', `--where: ${what}`, { remedy: help });
}

type Token = { kind: 'word' | 'quoted' | 'literal' | 'sign'; text: string };

const tokenForm =
  /\s*(?:'((?:[^']|'')*)'|"((?:[^"]|"")+)"|(-?\d+(?:\.\d+)?)(?![\w.])|([\p{L}_][\p{L}\p{N}_$]*)|(<>|<=|>=|[=<>(),]))/uy;

function tokensOf(text: string): Token[] {
  const tokens: Token[] = [];
  tokenForm.lastIndex = 0;
  while (text.slice(tokenForm.lastIndex).trim() !== '') {
    const at = tokenForm.lastIndex;
    const match = tokenForm.exec(text);
    if (!match) throw wrong(`nothing begins with ${text.slice(at).trim().slice(0, 20)}`);
    const [, literal, quotedName, number, word, sign] = match;
    if (literal !== undefined) tokens.push({ kind: 'literal', text: literal.replaceAll("''", "'") });
    else if (quotedName !== undefined)
      tokens.push({ kind: 'quoted', text: quotedName.replaceAll('""', '"') });
    else if (number !== undefined) tokens.push({ kind: 'literal', text: number });
    else if (word !== undefined) tokens.push({ kind: 'word', text: word });
    else tokens.push({ kind: 'sign', text: sign! });
  }
  return tokens;
}

/** @throws TidemarkError TM101 */
export function parseFilter(text: string): FilterCondition[] {
  const tokens = tokensOf(text);
  const conditions: FilterCondition[] = [];
  let at = 0;
  const isWord = (word: string) => tokens[at]?.kind === 'word' && tokens[at]!.text.toLowerCase() === word;
  const isSign = (sign: string) => tokens[at]?.kind === 'sign' && tokens[at]!.text === sign;
  const literal = () => {
    const token = tokens[at++];
    if (token?.kind !== 'literal')
      throw wrong(
        `a text in single quotes or a number is missing${token ? ` before ${token.text}` : ' at the end'}`,
      );
    return token.text;
  };
  do {
    const field = tokens[at++];
    if (field?.kind !== 'word' && field?.kind !== 'quoted') throw wrong('a condition begins with a field');
    const operator = operators.find((each) => isWord(each) || isSign(each));
    if (!operator) throw wrong(`${field.text} is followed by no operator`);
    at++;
    const condition: FilterCondition = {
      field: field.text,
      quoted: field.kind === 'quoted',
      operator,
      literals: [],
    };
    conditions.push(condition);
    if (operator !== 'in') {
      condition.literals.push(literal());
      continue;
    }
    if (!isSign('(')) throw wrong('in is followed by ( )');
    do {
      at++;
      condition.literals.push(literal());
    } while (isSign(','));
    if (!isSign(')')) throw wrong('in is not closed by )');
    at++;
  } while (isWord('and') && ++at > 0);
  if (at < tokens.length) throw wrong(`${tokens[at]!.text} is not expected where it stands`);
  return conditions;
}

/**
 * Conditions over cold_storage_archive as `a`.
 * @param first number of the first parameter
 * @throws TidemarkError TM101 for a field that there is not
 */
export function filterSql(
  conditions: readonly FilterCondition[],
  table: SourceTable,
  first: number,
): { conditions: string[]; values: string[][] } {
  const values: string[][] = [];
  const sql = conditions.map((condition) => {
    const { operator, literals } = condition;
    const { expression, type } = fieldOf(condition, table);
    values.push(literals);
    const parameter = `$${first + values.length - 1}::text[]`;
    // `any` of a subquery would compare with each array, not with what is in it.
    const typed = `(array(select l::${type} from unnest(${parameter}) l))`;
    if (expression === null)
      return `exists (select from jsonb_array_elements(a.delivered_to) d where d ->> 'destination' = any (${parameter}))`;
    return operator === 'in' ? `${expression} = any ${typed}` : `${expression} ${operator} ${typed}[1]`;
  });
  return { conditions: sql, values };
}

function fieldOf(
  { field, quoted, operator }: FilterCondition,
  table: SourceTable,
): { expression: string | null; type: string } {
  if (!quoted) {
    const name = field.toLowerCase();
    if (name === 'tenant') return { expression: 'a.tenant', type: 'text' };
    if (name === 'evicted_at') return { expression: 'a.evicted_at', type: 'timestamptz' };
    if (name === 'policy_version') return { expression: 'a.policy_version', type: 'integer' };
    if (name === 'destination') {
      if (operator === '=' || operator === 'in') return { expression: null, type: 'text' };
      throw wrong('of a destination it can be said that it is =, or in ( )');
    }
  }
  const at = table.key.findIndex(({ name }) => name === field);
  if (at < 0) throw wrong(`${field} is neither a field of Tombstones nor a column of the key`);
  const { type } = table.key[at]!;
  // Keys of other tables may be of other types: the cast must not meet them, in whatever order Postgres looks.
  return {
    expression: `case when a.table_schema = $1 and a.table_name = $2 then (a.row_key::json ->> ${at})::${type} end`,
    type,
  };
}
