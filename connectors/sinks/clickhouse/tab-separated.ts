/** ClickHouse's TabSeparated format: a line per row, fields escaped with backslashes, NULL as `\N`. */

/** A field as it stands in the line, escapes and all. */
export type Field = string;

export const nullField = '\\N';

const special = /[\\\t\n\r\b\f\0]/;
const escapes: Record<string, string> = {
  '\\': '\\\\',
  '\t': '\\t',
  '\n': '\\n',
  '\r': '\\r',
  '\b': '\\b',
  '\f': '\\f',
  '\0': '\\0',
};

export function escapeField(text: string): Field {
  return special.test(text) ? text.replace(/[\\\t\n\r\b\f\0]/g, (character) => escapes[character]!) : text;
}

const letters: Record<string, string> = {
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
  0: '\0',
  a: '\x07',
  e: '\x1b',
};

/** Null for `\N`. */
export function unescapeField(field: Field): string | null {
  if (!field.includes('\\')) return field;
  if (field === nullField) return null;
  return field.replace(/\\(.)/gs, (_, letter: string) => letters[letter] ?? letter);
}

/** A text inside an array or a map. */
export function quoteItem(text: string): string {
  return `'${escapeField(text).replace(/'/g, "\\'")}'`;
}

/** The items of an array's or a map's field, in order: texts, and null for NULL. Not nested. */
export function items(field: Field): (string | null)[] {
  const found: (string | null)[] = [];
  for (const [item] of field.matchAll(/'(?:[^'\\]|\\.)*'|[^'[\]{},:]+/gs)) {
    if (item.startsWith("'")) found.push(unescapeItem(item.slice(1, -1)));
    else found.push(item === 'NULL' ? null : item);
  }
  return found;
}

function unescapeItem(text: string): string {
  return text.includes('\\')
    ? text.replace(/\\(.)/gs, (_, letter: string) => letters[letter] ?? letter)
    : text;
}

const batchBytes = 4 << 20;
const batchRows = 4096;

/** Cuts a stream of bytes into rows. */
export class Lines {
  #rest: Buffer[] = [];
  #rows: Field[][] = [];
  #bytes = 0;

  /** Batches that are full. */
  *take(chunk: Buffer): Generator<Field[][]> {
    let start = 0;
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, start)) {
      const tail = chunk.subarray(start, end);
      const line = this.#rest.length === 0 ? tail : Buffer.concat([...this.#rest, tail]);
      this.#rest = [];
      start = end + 1;
      this.#rows.push(line.toString('utf8').split('\t'));
      this.#bytes += line.length;
      if (this.#rows.length >= batchRows || this.#bytes >= batchBytes) yield this.end();
    }
    if (start < chunk.length) this.#rest.push(Buffer.from(chunk.subarray(start)));
  }

  /** What is left. */
  end(): Field[][] {
    const rows = this.#rows;
    this.#rows = [];
    this.#bytes = 0;
    return rows;
  }
}
