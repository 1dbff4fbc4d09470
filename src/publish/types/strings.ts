/** Types whose binary form is their text, or nearly: text, varchar, enum, json, jsonb, uuid, bytea, inet. */
import type { CellReceiver } from '../../connector/native-row.ts';
import { TidemarkError } from '../../platform/errors.ts';
import type { ByteReader, ByteWriter } from '../byte-writer.ts';
import type { AvroSchema, BinaryText, Codec } from './codec.ts';

/** Text in the database's encoding, which `check` requires to be UTF8: bytes are copied, never decoded. */
export function textLike(schema: AvroSchema): Codec {
  return {
    schema,
    encode(bytes, start, end, out) {
      out.lengthPrefixed(bytes, start, end);
      return true;
    },
    encodeText: copyText,
    text: (bytes, start, end) => bytes.toString('utf8', start, end),
    decode: (reader) => reader.text(),
    pass: passText,
  };
}

/** `encodeText` of every type whose Avro form is its text. */
export function copyText(bytes: Buffer, start: number, end: number, out: ByteWriter): true {
  out.lengthPrefixed(bytes, start, end);
  return true;
}

/** `pass` of every type whose Avro form is its text. */
function passText(reader: ByteReader, to: CellReceiver): void {
  if (!to.utf8) {
    to.text(reader.text());
    return;
  }
  const length = reader.long();
  const start = reader.position;
  reader.position = start + length;
  to.utf8(reader.bytes, start, reader.position);
}

export const text = textLike('string');

/** A type that is carried as its own text; `binaryText` reads its binary form. */
export function textForm(binaryText: BinaryText, schema: AvroSchema = 'string'): Codec {
  return {
    schema,
    encode(bytes, start, end, out) {
      out.text(binaryText(bytes, start, end));
      return true;
    },
    encodeText: copyText,
    text: binaryText,
    decode: (reader) => reader.text(),
    pass: passText,
  };
}

const jsonSchema = { type: 'string', 'connect.version': 1, 'connect.name': 'io.debezium.data.Json' };

export const json = textLike(jsonSchema);

export const xml = textLike({ type: 'string', 'connect.version': 1, 'connect.name': 'io.debezium.data.Xml' });

/** Binary jsonb is a version byte (1) and the text. */
export const jsonb: Codec = {
  schema: jsonSchema,
  encode(bytes, start, end, out) {
    if (bytes[start] !== 1)
      throw new TidemarkError('TM206', `jsonb in binary version ${bytes[start]} is not known`);
    out.lengthPrefixed(bytes, start + 1, end);
    return true;
  },
  encodeText: copyText,
  text: (bytes, start, end) => bytes.toString('utf8', start + 1, end),
  decode: (reader) => reader.text(),
  pass: passText,
};

export const bytea: Codec = {
  schema: 'bytes',
  encode(bytes, start, end, out) {
    out.lengthPrefixed(bytes, start, end);
    return true;
  },
  encodeText(bytes, start, end, out) {
    const length = (end - start - 2) / 2;
    out.long(length);
    out.ensure(length);
    const { bytes: target } = out;
    let at = out.position;
    for (let i = start + 2; i < end; i += 2)
      target[at++] = (hexDigit(bytes[i]!) << 4) | hexDigit(bytes[i + 1]!);
    out.position = at;
    return true;
  },
  text: (bytes, start, end) => `\\x${bytes.toString('hex', start, end)}`,
  decode: (reader) => `\\x${reader.lengthPrefixed().toString('hex')}`,
  pass(reader, to) {
    if (!to.binary) return to.text(bytea.decode(reader));
    const end = reader.long() + reader.position;
    to.binary(reader.bytes, reader.position, end);
    reader.position = end;
  },
};

/** 0-9 and a-f: what bytea_output = hex prints. */
function hexDigit(character: number): number {
  return character < 58 ? character - 48 : character - 87;
}

const hexDigits = Buffer.from('0123456789abcdef', 'latin1');

export const uuid: Codec = {
  schema: { type: 'string', 'connect.version': 1, 'connect.name': 'io.debezium.data.Uuid' },
  encode(bytes, start, _end, out) {
    out.ensure(38);
    const target = out.bytes;
    let at = out.position;
    target[at++] = 72; // Avro length 36
    for (let i = 0; i < 16; i++) {
      if (i === 4 || i === 6 || i === 8 || i === 10) target[at++] = 0x2d;
      const byte = bytes[start + i]!;
      target[at++] = hexDigits[byte >> 4]!;
      target[at++] = hexDigits[byte & 15]!;
    }
    out.position = at;
    return true;
  },
  encodeText: copyText,
  text: (bytes, start) => {
    const hex = bytes.toString('hex', start, start + 16);
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
  },
  decode: (reader) => reader.text(),
  pass: passText,
};

export function enumOf(labels: readonly string[]): Codec {
  return textLike({
    type: 'string',
    'connect.version': 1,
    'connect.parameters': { allowed: labels.join(',') },
    'connect.name': 'io.debezium.data.Enum',
  });
}

/** inet and cidr: family (2 = IPv4, 3 = IPv6), prefix bits, is-cidr flag, length, address bytes. */
export function network(alwaysPrefix: boolean): Codec {
  const asText = (bytes: Buffer, start: number) => {
    const family = bytes[start]!;
    const bits = bytes[start + 1]!;
    const width = family === 2 ? 4 : 16;
    const address = bytes.subarray(start + 4, start + 4 + width);
    const host = family === 2 ? [...address].join('.') : ipv6Text(address);
    return bits === width * 8 && !alwaysPrefix ? host : `${host}/${bits}`;
  };
  return {
    schema: 'string',
    encode(bytes, start, _end, out) {
      out.ascii(asText(bytes, start));
      return true;
    },
    encodeText: copyText,
    text: asText,
    decode: (reader) => reader.text(),
    pass: passText,
  };
}

/** Longest run of zero groups (at least two) is `::`; embedded IPv4 as Postgres prints it. */
function ipv6Text(address: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, i) => address.readUInt16BE(i * 2));
  let best = { start: -1, length: 1 };
  for (let i = 0; i < 8; i++) {
    let length = 0;
    while (i + length < 8 && groups[i + length] === 0) length++;
    if (length > best.length) best = { start: i, length };
  }
  const v4 = best.start === 0 && (best.length === 6 || (best.length === 5 && groups[5] === 0xffff));
  const parts: string[] = [];
  for (let i = 0; i < 8; i++) {
    if (i === best.start) {
      parts.push(i === 0 ? ':' : '');
      i += best.length - 1;
      if (i === 7) parts.push('');
      continue;
    }
    if (v4 && i === 6) {
      parts.push([...address.subarray(12)].join('.'));
      break;
    }
    parts.push(groups[i]!.toString(16));
  }
  return parts.join(':');
}

/** macaddr and macaddr8. */
export const macaddr: Codec = {
  schema: 'string',
  encode(bytes, start, end, out) {
    out.ascii(macaddr.text(bytes, start, end));
    return true;
  },
  encodeText: copyText,
  text: (bytes, start, end) => bytes.toString('hex', start, end).replace(/..(?!$)/g, '$&:'),
  decode: (reader) => reader.text(),
  pass: passText,
};
