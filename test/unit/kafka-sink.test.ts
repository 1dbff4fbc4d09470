import avro from 'avsc';
import { describe, expect, test } from 'vitest';
import { keySchema, valueSchema } from '../../connectors/sinks/kafka/avro-schema.ts';
import { fieldsOf } from '../../connectors/sinks/kafka/fields.ts';
import { daysOf, decimalBytes, isExact, millisOf, unscaled } from '../../connectors/sinks/kafka/forms.ts';
import { kafkaSink } from '../../connectors/sinks/kafka/index.ts';
import { resolveSettings } from '../../connectors/sinks/kafka/settings.ts';
import { parseTemplate, topicOf } from '../../connectors/sinks/kafka/topic-name.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import type { OptionValues } from '../../src/connector/sink.ts';

const template = `m.${'$'}{schema}.${'$'}{table}`;
const place = { sourceId: 'app', destination: 'mirror' };

function options(own: OptionValues): OptionValues {
  const values: OptionValues = {};
  for (const [key, field] of Object.entries(kafkaSink.options)) {
    if (field.default !== undefined) values[key] = field.default;
  }
  return { ...values, 'kafka.brokers': ['127.0.0.1:9092'], ...own };
}

describe('topic names', () => {
  const of = (schema: string, name: string) => topicOf(parseTemplate(template), { schema, name });

  test('plain names stay, others stay apart', () => {
    expect(of('app', 'findings_2-a')).toBe('m.app.findings_2-a');
    const odd = [
      ['a b', 'c'],
      ['a_b', 'c'],
      ['a.b', 'c'],
      ['a', 'b.c'],
      ['ä', 'c'],
      ['ö', 'c'],
      ['a', '🌊'],
      ['x'.repeat(63), 'ü'.repeat(31)],
    ];
    const names = odd.map(([schema, name]) => of(schema!, name!));
    expect(new Set(names).size).toBe(odd.length);
    for (const name of names) expect(name).toMatch(/^[A-Za-z0-9._-]{1,249}$/);
  });

  test('a name that is too long is cut, and has its hash', () => {
    const long = topicOf(parseTemplate(`${'p'.repeat(230)}.${'$'}{table}`), {
      schema: 'app',
      name: 'x'.repeat(63),
    });
    expect(long).toHaveLength(249);
    expect(long).toMatch(/-[0-9a-f]{8}$/);
  });

  test.each(['mirror', `${'$'}{table} x`, `${'$'}{tabel}`, `${'$'}{table}${'$'}`, `a/${'$'}{table}`])(
    'the template %s is refused',
    (source) => {
      expect(() => parseTemplate(source)).toThrow(/topic\.name/);
    },
  );
});

describe('values', () => {
  test.each([
    ['0', '00'],
    ['127', '7f'],
    ['128', '0080'],
    ['-1', 'ff'],
    ['-128', '80'],
    ['-129', 'ff7f'],
    ['255', '00ff'],
    ['-256', 'ff00'],
    ['123456789012345678901234567890', '018ee90ff6c373e0ee4e3f0ad2'],
  ])('Decimal of %s, as Java writes BigInteger', (text, hex) => {
    expect(decimalBytes(BigInt(text)).toString('hex')).toBe(hex);
  });

  test('digits of a numeric, and what is none', () => {
    expect(unscaled('-0.05')).toBe(-5n);
    expect(unscaled('NaN')).toBeNull();
    expect(isExact({ kind: 'float64' }, 'Infinity', 'json')).toBe(false);
    expect(isExact({ kind: 'float64' }, '1e-07', 'json')).toBe(true);
  });

  test('days and milliseconds, as JavaScript counts them where it can', () => {
    for (const text of ['1970-01-01', '1969-12-31', '2000-02-29', '1900-03-01', '0001-01-01', '9999-12-31']) {
      expect(daysOf(text)).toBe(Date.parse(`${text}T00:00:00Z`) / 86_400_000);
    }
    expect(daysOf('0001-12-31 BC')).toBe(daysOf('0001-01-01')! - 1);
    expect(daysOf('4713-01-01 BC')).toBe(Date.UTC(-4712, 0, 1) / 86_400_000);
    expect(daysOf('infinity')).toBeNull();
    expect(millisOf('2024-02-29 12:34:56.789+00')).toEqual({
      millis: Date.UTC(2024, 1, 29, 12, 34, 56, 789),
      whole: true,
    });
    expect(millisOf('1969-12-31 23:59:59.9999')).toEqual({ millis: -1, whole: false });
    expect(millisOf('-infinity')).toBeNull();
  });
});

describe('Avro schemas', () => {
  const column = (name: string, number: number, key = false) => ({
    name,
    type: 'text',
    number,
    key,
    nullable: !key,
  });
  const shape: TableShape = {
    schema: 'app',
    name: 'odd',
    columns: [column('a b', 1, true), column('a-b', 2), column('1st', 3), column('__proto__', 4)],
    keyColumns: [0],
    tenantColumn: null,
  };

  test('names are Avro names and stay apart, and the schemas parse', async () => {
    const { rows } = await resolveSettings(
      place,
      options({ format: 'avro', 'registry.url': 'http://127.0.0.1' }),
    );
    const fields = fieldsOf(shape, rows, null);
    const value = valueSchema('m.1-x.odd', fields);
    expect(value.names.slice(0, 4)).toEqual(['a_b', 'a_b_2', '_1st', '__proto___2']);
    for (const { schema } of [value, keySchema('m.1-x.odd', fields.key!)]) {
      expect(avro.Type.forSchema(schema as unknown as avro.Schema).name).toMatch(
        /^m\._1_x\.odd\.(Key|Value)$/,
      );
    }
  });

  test('a renamed key column keeps its name in the key; another key is refused', async () => {
    const { rows } = await resolveSettings(place, options({}));
    const { key } = fieldsOf(shape, rows, null);
    const renamed = { ...shape, columns: [{ ...shape.columns[0]!, name: 'c' }, ...shape.columns.slice(1)] };
    expect(fieldsOf(renamed, rows, key).key).toEqual(key);
    expect(() => fieldsOf({ ...shape, keyColumns: [0, 1] }, rows, key)).toThrow(
      /the key of app\.odd changed/,
    );
  });
});

describe('settings', () => {
  test.each<[OptionValues, string]>([
    [{ 'kafka.brokers': [] }, 'kafka.brokers'],
    [{ 'kafka.brokers': ['broker'] }, 'kafka.brokers'],
    [{ 'kafka.sasl.mechanism': 'plain' }, 'kafka.sasl.mechanism'],
    [{ 'kafka.sasl.password': 'x' }, 'kafka.sasl.username'],
    [{ 'kafka.tls.mode': 'disable', 'kafka.tls.ca': '/ca.pem' }, 'kafka.tls.ca'],
    [{ format: 'avro' }, 'registry.url'],
    [{ format: 'avro', 'registry.url': 'http://user@registry' }, 'registry.username'],
    [{ format: 'avro', 'registry.url': 'http://registry', 'schemas.enable': true }, 'schemas.enable'],
    [{ 'schemas.enable': true, unchanged: 'omit' }, 'unchanged'],
    [{ 'metadata.fields': ['lsn'] }, 'metadata.fields'],
    [{ 'topic.config': ['cleanup.policy=delete'] }, 'topic.config'],
    [{ 'topic.config': ['retention.ms'] }, 'topic.config'],
    [{ 'topic.partitions': 0 }, 'topic.partitions'],
    [{ 'progress.topic': 'a b' }, 'progress.topic'],
  ])('%j is TM101 and names its key', async (own, key) => {
    await expect(resolveSettings(place, options(own))).rejects.toMatchObject({
      code: 'TM101',
      message: expect.stringMatching(new RegExp(`^${key.replaceAll('.', '\\.')}: `)),
    });
  });

  test('loopback needs no TLS, others are checked; the registry gives its credentials away', async () => {
    expect((await resolveSettings(place, options({}))).endpoint.tls).toBe(false);
    const remote = await resolveSettings(place, options({ 'kafka.brokers': ['kafka.internal:9093'] }));
    expect(remote.endpoint.tls).toMatchObject({ rejectUnauthorized: true });
    const url = 'https://user:p%40ss@registry.internal/';
    const { registry } = await resolveSettings(place, options({ format: 'avro', 'registry.url': url }));
    expect(registry).toMatchObject({
      url: 'https://registry.internal',
      credentials: { username: 'user', password: 'p@ss' },
    });
  });
});
