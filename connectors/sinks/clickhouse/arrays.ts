/** Arrays of one dimension in Postgres' own text (PostgreSQL manual, "Array Input and Output Syntax"). */

/** Null where the text is not of one plain dimension. Items are texts; null for NULL. */
export function parseArray(text: string): (string | null)[] | null {
  if (!text.startsWith('{') || !text.endsWith('}')) return null;
  if (text === '{}') return [];
  const found: (string | null)[] = [];
  const item = /"((?:[^"\\]|\\.)*)"|([^",{}\\]+)/gsy;
  for (let at = 1; ; ) {
    item.lastIndex = at;
    const match = item.exec(text);
    if (!match) return null;
    const [, quoted, plain] = match;
    found.push(quoted === undefined ? (plain === 'NULL' ? null : plain!) : quoted.replace(/\\(.)/gs, '$1'));
    at = item.lastIndex;
    if (at === text.length - 1) return found;
    if (text[at] !== ',') return null;
    at++;
  }
}

const needsQuotes = /^$|["\\{},\s]|^null$/i;

export function printArray(items: readonly (string | null)[]): string {
  const printed = items.map((item) => {
    if (item === null) return 'NULL';
    return needsQuotes.test(item) ? `"${item.replace(/["\\]/g, '\\$&')}"` : item;
  });
  return `{${printed.join(',')}}`;
}
