/** Arrays in their binary form. */
import type { Write } from './binary-parts.ts';

/** array_recv, of one dimension that begins at 1: whatever else has another text. */
export function arrayOf(element: Write, oid: number): Write {
  return (to, at, text) => {
    if (!text.startsWith('{') || text.charCodeAt(1) === 123) return -1;
    const header = at + 4;
    const empty = text === '{}';
    let end = header + (empty ? 12 : 20);
    let count = 0;
    let nulls = 0;
    for (let i = 1; !empty && i < text.length; count++) {
      const item = arrayItem(text, i);
      if (item.value === null) {
        nulls = 1;
        to.view.setInt32(end, -1);
        end += 4;
      } else end = element(to, end, item.value);
      if (end < 0) return -1;
      i = item.end + 1;
    }
    to.view.setInt32(at, end - header);
    to.view.setInt32(header, empty ? 0 : 1);
    to.view.setInt32(header + 4, nulls);
    to.view.setInt32(header + 8, oid);
    if (!empty) {
      to.view.setInt32(header + 12, count);
      to.view.setInt32(header + 16, 1);
    }
    return end;
  };
}

/** The element at `from` (PostgreSQL manual, "Array Input and Output Syntax") and where its comma or brace is. */
function arrayItem(text: string, from: number): { value: string | null; end: number } {
  if (text.charCodeAt(from) !== 34) {
    let end = from;
    while (end < text.length && text.charCodeAt(end) !== 44 && text.charCodeAt(end) !== 125) end++;
    const value = text.slice(from, end);
    return { value: value === 'NULL' ? null : value, end };
  }
  let value = '';
  let i = from + 1;
  for (; i < text.length && text.charCodeAt(i) !== 34; i++) {
    if (text.charCodeAt(i) === 92) i++;
    value += text[i] ?? '';
  }
  return { value, end: i + 1 };
}
