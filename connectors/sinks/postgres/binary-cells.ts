/**
 * Postgres' text of a value to the bytes that its type's receive function takes (COPY … FORMAT binary), for the types
 * that most tables consist of. The server saves its parsing, which costs it more than this costs us. Whatever is not in the
 * one form that Postgres itself prints is left to the text format, which also says what is wrong with it.
 */

/** Where bytes go. There is always as much room as the encoder asks for. */
export interface ByteSink {
  bytes: Buffer;
  view: DataView;
}

/** Writes the value with its length in front; the offset behind it, or -1 where the text has another form. */
type Write = (to: ByteSink, at: number, text: string) => number;

export interface CellEncoder {
  write: Write;
  /** So many bytes are enough for a value and its length. */
  room(text: string): number;
}

/** Beyond it a text is measured, since three bytes for every character are too many then. */
const longText = 4096;

function scalarRoom(text: string): number {
  return 40 + (text.length < longText ? text.length * 3 : Buffer.byteLength(text));
}

/** An element of two characters, with its comma, takes twelve bytes where it is a bigint. */
function arrayRoom(text: string): number {
  return 40 + text.length * 6;
}

/** Below it a loop is faster than the call. */
const shortText = 24;

function writeText(to: ByteSink, at: number, text: string): number {
  const { length } = text;
  if (length >= shortText) return at + to.bytes.write(text, at);
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i);
    if (code > 127) return at + to.bytes.write(text, at);
    to.bytes[at + i] = code;
  }
  return at + length;
}

const plainText: Write = (to, at, text) => {
  const end = writeText(to, at + 4, text);
  to.view.setInt32(at, end - at - 4);
  return end;
};

/** jsonb_recv: a version, then the text. */
const jsonbText: Write = (to, at, text) => {
  to.bytes[at + 4] = 1;
  const end = writeText(to, at + 5, text);
  to.view.setInt32(at, end - at - 4);
  return end;
};

const boolean: Write = (to, at, text) => {
  if (text !== 't' && text !== 'f') return -1;
  to.view.setInt32(at, 1);
  to.bytes[at + 4] = text === 't' ? 1 : 0;
  return at + 5;
};

/** Digits from `from` to `to`; NaN where there is anything else. */
function digits(text: string, from: number, to: number): number {
  let value = 0;
  for (let i = from; i < to; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (!(digit >= 0 && digit <= 9)) return Number.NaN;
    value = value * 10 + digit;
  }
  return from < to ? value : Number.NaN;
}

/** Of at most 15 digits, which a number holds exactly; NaN for all else. */
function integerOf(text: string): number {
  const negative = text.charCodeAt(0) === 45;
  if (text.length > 16) return Number.NaN;
  const value = digits(text, negative ? 1 : 0, text.length);
  return negative ? -value : value;
}

function fixedInteger(size: 2 | 4, least: number, most: number): Write {
  return (to, at, text) => {
    const value = integerOf(text);
    if (!(value >= least && value <= most)) return -1;
    to.view.setInt32(at, size);
    if (size === 2) to.view.setInt16(at + 4, value);
    else to.view.setInt32(at + 4, value);
    return at + 4 + size;
  };
}

const wholeNumber = /^-?\d{1,19}$/;
const int64 = { least: -(2n ** 63n), most: 2n ** 63n - 1n };

const bigint: Write = (to, at, text) => {
  const value = integerOf(text);
  if (Number.isSafeInteger(value)) return writeInt64(to, at, value);
  if (!wholeNumber.test(text)) return -1;
  const exact = BigInt(text);
  if (exact < int64.least || exact > int64.most) return -1;
  to.view.setInt32(at, 8);
  to.view.setBigInt64(at + 4, exact);
  return at + 12;
};

/** @param value an exact integer */
function writeInt64(to: ByteSink, at: number, value: number): number {
  to.view.setInt32(at, 8);
  to.view.setInt32(at + 4, Math.floor(value / 0x1_0000_0000));
  to.view.setUint32(at + 8, value >>> 0);
  return at + 12;
}

const doublePrecision: Write = (to, at, text) => {
  const value = Number(text);
  if (text === '' || text.startsWith(' ') || (Number.isNaN(value) && text !== 'NaN')) return -1;
  to.view.setInt32(at, 8);
  to.view.setFloat64(at + 4, value);
  return at + 12;
};

/** numeric_recv: number of base-10000 digits, weight of the first, sign, display scale, the digits. */
const numeric: Write = (to, at, text) => {
  const { view } = to;
  if (text === 'NaN') return numericHeader(to, at, 0, 0, 0xc000, 0);
  const negative = text.charCodeAt(0) === 45;
  const from = negative ? 1 : 0;
  const point = text.indexOf('.');
  const whole = (point < 0 ? text.length : point) - from;
  const scale = point < 0 ? 0 : text.length - point - 1;
  if (whole < 1) return -1;
  const weight = Math.ceil(whole / 4) - 1;
  const count = weight + 1 + Math.ceil(scale / 4);
  let end = numericHeader(to, at, count, weight, negative ? 0x4000 : 0, scale);
  for (let i = from, size = whole - weight * 4; i < from + whole; i += size, size = 4) {
    const group = digits(text, i, i + size);
    if (Number.isNaN(group)) return -1;
    view.setInt16(end, group);
    end += 2;
  }
  for (let i = point + 1; point >= 0 && i < text.length; i += 4) {
    const size = Math.min(4, text.length - i);
    const group = digits(text, i, i + size) * 10 ** (4 - size);
    if (Number.isNaN(group)) return -1;
    view.setInt16(end, group);
    end += 2;
  }
  return end;
};

function numericHeader(
  { view }: ByteSink,
  at: number,
  count: number,
  weight: number,
  sign: number,
  scale: number,
): number {
  view.setInt32(at, 8 + count * 2);
  view.setInt16(at + 4, count);
  view.setInt16(at + 6, weight);
  view.setUint16(at + 8, sign);
  view.setUint16(at + 10, scale);
  return at + 12;
}

/** Values of hexadecimal digits by character, 255 for all others. */
const hexDigits = new Uint8Array(0x1_0000).fill(255);
for (const [i, digit] of [...'0123456789abcdef'].entries()) hexDigits[digit.charCodeAt(0)] = i;

const uuid: Write = (to, at, text) => {
  if (text.length !== 36) return -1;
  let from = 0;
  for (let i = 0; i < 16; i++) {
    if (i === 4 || i === 6 || i === 8 || i === 10) {
      if (text.charCodeAt(from) !== 45) return -1;
      from++;
    }
    const high = hexDigits[text.charCodeAt(from)]!;
    const low = hexDigits[text.charCodeAt(from + 1)]!;
    if ((high | low) > 15) return -1;
    to.bytes[at + 4 + i] = (high << 4) | low;
    from += 2;
  }
  to.view.setInt32(at, 16);
  return at + 20;
};

const bytea: Write = (to, at, text) => {
  if (!text.startsWith('\\x') || text.length % 2 !== 0) return -1;
  const size = text.length / 2 - 1;
  if (to.bytes.write(text.slice(2), at + 4, 'hex') !== size) return -1;
  to.view.setInt32(at, size);
  return at + 4 + size;
};

/** Days from 2000-01-01 to a date of the Gregorian calendar (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms"). */
function dayNumber(year: number, month: number, day: number): number {
  const shifted = month <= 2 ? year - 1 : year;
  const era = Math.floor(shifted / 400);
  const ofEra = shifted - era * 400;
  const ofYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  return era * 146_097 + ofEra * 365 + Math.floor(ofEra / 4) - Math.floor(ofEra / 100) + ofYear - 730_425;
}

/** Of `YYYY-MM-DD` at the start of the text; NaN for other years. */
function dayOf(text: string): number {
  if (text.charCodeAt(4) !== 45 || text.charCodeAt(7) !== 45) return Number.NaN;
  return dayNumber(digits(text, 0, 4), digits(text, 5, 7), digits(text, 8, 10));
}

/** Microseconds of `HH:MM:SS` with up to six decimals; NaN for all else. */
function timeOf(text: string, from: number, to: number): number {
  if (to - from < 8 || text.charCodeAt(from + 2) !== 58 || text.charCodeAt(from + 5) !== 58)
    return Number.NaN;
  const hours = digits(text, from, from + 2);
  const minutes = digits(text, from + 3, from + 5);
  const seconds = digits(text, from + 6, from + 8);
  let micros = 0;
  if (to - from > 8) {
    const decimals = to - from - 9;
    if (text.charCodeAt(from + 8) !== 46 || decimals > 6) return Number.NaN;
    micros = digits(text, from + 9, to) * 10 ** (6 - decimals);
  }
  return ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros;
}

const date: Write = (to, at, text) => {
  let days = text.length === 10 ? dayOf(text) : Number.NaN;
  if (text === 'infinity') days = 0x7fff_ffff;
  if (text === '-infinity') days = -0x8000_0000;
  if (Number.isNaN(days)) return -1;
  to.view.setInt32(at, 4);
  to.view.setInt32(at + 4, days);
  return at + 8;
};

const time: Write = (to, at, text) => {
  const micros = timeOf(text, 0, text.length);
  return Number.isNaN(micros) ? -1 : writeInt64(to, at, micros);
};

/** @param suffix what follows the time: the zone, which is UTC in everything that is streamed */
function timestamp(suffix: string): Write {
  return (to, at, text) => {
    if (text === 'infinity' || text === '-infinity') {
      to.view.setInt32(at, 8);
      to.view.setBigInt64(at + 4, text === 'infinity' ? int64.most : int64.least);
      return at + 12;
    }
    if (text.charCodeAt(10) !== 32 || !text.endsWith(suffix)) return -1;
    const micros = dayOf(text) * 86_400_000_000 + timeOf(text, 11, text.length - suffix.length);
    return Number.isSafeInteger(micros) ? writeInt64(to, at, micros) : -1;
  };
}

/** network_recv: family, bits, whether it is a cidr, number of bytes, the bytes. */
const inet: Write = (to, at, text) => {
  const slash = text.indexOf('/');
  const address = slash < 0 ? text : text.slice(0, slash);
  const four = !address.includes(':');
  const bytes = four ? fourBytes(address) : sixteenBytes(address);
  if (!bytes) return -1;
  const bits = slash < 0 ? bytes.length * 8 : digits(text, slash + 1, text.length);
  if (!(bits <= bytes.length * 8)) return -1;
  to.view.setInt32(at, 4 + bytes.length);
  to.bytes[at + 4] = four ? 2 : 3;
  to.bytes[at + 5] = bits;
  to.bytes[at + 6] = 0;
  to.bytes[at + 7] = bytes.length;
  for (let i = 0; i < bytes.length; i++) to.bytes[at + 8 + i] = bytes[i]!;
  return at + 8 + bytes.length;
};

function fourBytes(text: string): number[] | null {
  const bytes = text.split('.').map((part) => digits(part, 0, part.length));
  return bytes.length === 4 && bytes.every((byte) => byte <= 255) ? bytes : null;
}

function sixteenBytes(text: string): number[] | null {
  const halves = text.split('::').map((half) => (half === '' ? [] : half.split(':').map(groupBytes)));
  if (halves.length > 2 || halves.some((half) => half.includes(null))) return null;
  const [head, tail = []] = halves.map((half) => half.flatMap((group) => group!));
  const missing = 16 - head!.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 0) return null;
  return [...head!, ...new Array<number>(missing).fill(0), ...tail];
}

function groupBytes(text: string): number[] | null {
  if (text.includes('.')) return fourBytes(text);
  const value = /^[0-9a-f]{1,4}$/.test(text) ? Number.parseInt(text, 16) : Number.NaN;
  return Number.isNaN(value) ? null : [value >> 8, value & 255];
}

/** array_recv, of one dimension that begins at 1: whatever else has another text. */
function arrayOf(element: Write, oid: number): Write {
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

const smallint = fixedInteger(2, -0x8000, 0x7fff);
const integer = fixedInteger(4, -0x8000_0000, 0x7fff_ffff);

const scalars: Readonly<Record<string, Write>> = {
  text: plainText,
  'character varying': plainText,
  character: plainText,
  json: plainText,
  jsonb: jsonbText,
  boolean,
  smallint,
  integer,
  bigint,
  numeric,
  'double precision': doublePrecision,
  uuid,
  bytea,
  date,
  'time without time zone': time,
  'timestamp without time zone': timestamp(''),
  'timestamp with time zone': timestamp('+00'),
  inet,
  cidr: inet,
};

const arrays: Readonly<Record<string, Write>> = {
  // The numbers of the element types are part of the protocol and never change (pg_type.dat).
  'text[]': arrayOf(plainText, 25),
  'character varying[]': arrayOf(plainText, 1043),
  'smallint[]': arrayOf(smallint, 21),
  'integer[]': arrayOf(integer, 23),
  'bigint[]': arrayOf(bigint, 20),
  'uuid[]': arrayOf(uuid, 2950),
};

/** Null for types that only travel as text. @param type as typeText gives it */
export function cellEncoder(type: string, isEnum: boolean): CellEncoder | null {
  const name = type.replace(/\([-0-9, ]+\)/, '');
  if (name.endsWith('[]')) return isEnum || !arrays[name] ? null : { write: arrays[name], room: arrayRoom };
  // enum_recv takes the label.
  const write = isEnum ? plainText : scalars[name];
  return write ? { write, room: scalarRoom } : null;
}
