/** hstore: Debezium's JSON, with the pairs in hstore's own order, so that its text can be made of it again. */
import type { BinaryText, Codec } from './codec.ts';

/** The number of pairs; of each the key and the value (−1 for null), with their lengths. */
function pairsOf(bytes: Buffer, start: number): [string, string | null][] {
  let at = start + 4;
  const part = () => {
    const size = bytes.readInt32BE(at);
    at += 4;
    if (size < 0) return null;
    at += size;
    return bytes.toString('utf8', at - size, at);
  };
  return Array.from({ length: bytes.readInt32BE(start) }, () => [part()!, part()]);
}

function quote(text: string): string {
  return `"${text.replace(/["\\]/g, '\\$&')}"`;
}

function textOf(pairs: [string, string | null][]): string {
  return pairs.map(([key, value]) => `${quote(key)}=>${value === null ? 'NULL' : quote(value)}`).join(', ');
}

/** Written by hand: an object would sort keys that look like numbers, and lose one called __proto__. */
function jsonOf(pairs: [string, string | null][]): string {
  return `{${pairs.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`).join(',')}}`;
}

export const hstoreText: BinaryText = (bytes, start) => textOf(pairsOf(bytes, start));

const quoted = /"((?:[^"\\]|\\.)*)"=>(?:NULL|"((?:[^"\\]|\\.)*)")/gs;
const member = /("(?:[^"\\]|\\.)*"):(null|"(?:[^"\\]|\\.)*")/g;

export const hstore: Codec = {
  schema: { type: 'string', 'connect.version': 1, 'connect.name': 'io.debezium.data.Json' },
  encode(bytes, start, _end, out) {
    out.text(jsonOf(pairsOf(bytes, start)));
    return true;
  },
  encodeText(bytes, start, end, out) {
    const plain = (text: string) => text.replace(/\\(.)/gs, '$1');
    const pairs = [...bytes.toString('utf8', start, end).matchAll(quoted)].map(
      ([, key, value]): [string, string | null] => [plain(key!), value === undefined ? null : plain(value)],
    );
    out.text(jsonOf(pairs));
    return true;
  },
  text: hstoreText,
  decode(reader) {
    const json = reader.text();
    // What stands for an unchanged value is not JSON; the header then has the last word.
    if (!json.startsWith('{')) return json;
    return textOf(
      [...json.matchAll(member)].map(([, key, value]) => [
        JSON.parse(key!) as string,
        JSON.parse(value!) as string | null,
      ]),
    );
  },
};
