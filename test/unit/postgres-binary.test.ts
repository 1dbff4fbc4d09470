/** The binary form of a row has the bytes that Postgres documents; what another form has goes as text. */
import { describe, expect, test } from 'vitest';
import { cellEncoder } from '../../connectors/sinks/postgres/binary-cells.ts';
import type { ByteSink } from '../../connectors/sinks/postgres/binary-parts.ts';

function encode(type: string, text: string, isEnum = false): string | null {
  const encoder = cellEncoder(type, isEnum)!;
  const bytes = Buffer.alloc(encoder.room(text), 0xee);
  const to: ByteSink = { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length) };
  const end = encoder.write(to, 0, text);
  if (end < 0) return null;
  expect(bytes.readInt32BE(0)).toBe(end - 4);
  return bytes.subarray(4, end).toString('hex');
}

test.each([
  ['smallint', '-2', 'fffe'],
  ['integer', '2147483647', '7fffffff'],
  ['bigint', '-1', 'ffffffffffffffff'],
  ['bigint', '9223372036854775807', '7fffffffffffffff'],
  ['boolean', 't', '01'],
  ['uuid', '00112233-4455-6677-8899-aabbccddeeff', '00112233445566778899aabbccddeeff'],
  ['text', 'aé', '61c3a9'],
  ['jsonb', '{}', '017b7d'],
  ['bytea', '\\x00ff', '00ff'],
  ['date', '2000-01-01', '00000000'],
  ['date', '1999-12-31', 'ffffffff'],
  ['timestamp with time zone', '2000-01-01 00:00:01.5+00', '000000000016e360'],
  ['timestamp(3) without time zone', 'infinity', '7fffffffffffffff'],
  ['time without time zone', '24:00:00', '000000141dd76000'],
  ['numeric(12,2)', '1.50', '0002000000000002' + '00011388'],
  ['numeric', '-12345.6', '0003000140000001' + '000109291770'],
  ['numeric', 'NaN', '00000000c0000000'],
  ['double precision', '-0', '8000000000000000'],
  ['inet', '10.0.0.1', '0220000' + '40a000001'],
  ['cidr', '::1:0/112', '03700010' + '0000000000000000000000000001' + '0000'],
  [
    'integer[]',
    '{1,NULL}',
    '00000001' + '00000001' + '00000017' + '00000002' + '00000001' + '0000000400000001' + 'ffffffff',
  ],
  ['text[]', '{}', '00000000' + '00000000' + '00000019'],
])('%s %s', (type, text, hex) => {
  expect(encode(type, text)).toBe(hex);
});

describe('another form', () => {
  test.each([
    ['smallint', '4242424'],
    ['smallint', ''],
    ['integer', '1 '],
    ['bigint', '9223372036854775808'],
    ['bigint', '1e3'],
    ['boolean', 'true'],
    ['uuid', '00112233-4455-6677-8899-aabbccddeef'],
    ['uuid', '00112233-4455-6677-8899-aabbccddeefé'],
    ['bytea', 'abc'],
    ['bytea', '\\xzz'],
    ['date', '0044-03-15 BC'],
    ['date', '12345-01-01'],
    ['timestamp with time zone', '2026-11-01 12:34:56+02'],
    ['timestamp with time zone', '0044-03-15 00:00:00+00 BC'],
    ['timestamp without time zone', '2026-11-01T12:34:56'],
    ['numeric', 'Infinity'],
    ['numeric', '1e5'],
    ['numeric', ''],
    ['double precision', ''],
    ['double precision', 'x'],
    ['inet', '10.0.0.256'],
    ['inet', '::1::'],
    ['integer[]', '[0:1]={5,6}'],
    ['integer[]', '{{1},{2}}'],
  ])('of %s goes as text: %s', (type, text) => {
    expect(encode(type, text)).toBeNull();
  });

  test.each(['real', 'tsvector', 'public.citext', 'numeric[]', '"char"', 'xml'])('of all of %s', (type) => {
    expect(cellEncoder(type, false)).toBeNull();
  });
});
