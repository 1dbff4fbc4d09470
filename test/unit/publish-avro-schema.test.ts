/** A consumer rebuilds the shape from the registry alone; Avro's names never lose or merge a column. */
import { describe, expect, it, vi } from 'vitest';
import type { ColumnShape, TableShape } from '../../src/connector/shape.ts';
import {
  avroName,
  keySchema,
  sameSchema,
  shapeOfSchema,
  valueSchema,
} from '../../src/publish/avro-schema.ts';
import { applyHeaders, compileEnvelopeDecoder, schemaIdOf } from '../../src/publish/envelope-decoder.ts';
import type { Prng } from '../../src/sample/prng.ts';
import { avscType } from '../fixtures/pgoutput/avro-twin.ts';
import { cases, replayable } from '../fixtures/pgoutput/replay.ts';
import { hostileNames, hostileTexts } from '../fixtures/pgoutput/values.ts';

const types = [
  'integer',
  'numeric',
  'numeric[]',
  'numeric(9,2)',
  'text[]',
  'app.severity',
  'app.severity[]',
  'interval',
];

function anyShape(prng: Prng): TableShape {
  const names = prng.some(hostileNames, prng.integer(0, 12));
  const unique = names.filter(
    (name, i) => names.findIndex((other) => avroName(other) === avroName(name)) === i,
  );
  const columns = unique.map((name): ColumnShape => {
    const type = prng.pick(types);
    const key = prng.chance(0.3);
    return {
      name,
      type,
      ...(type.startsWith('app.')
        ? { enum: { schema: 'app', name: 'severity', labels: prng.some(hostileNames, 3) } }
        : {}),
      key,
      nullable: !key,
    };
  });
  return {
    schema: prng.pick(hostileNames),
    name: prng.pick(hostileNames),
    columns,
    keyColumns: columns.flatMap(({ key }, i) => (key ? [i] : [])),
    tenantColumn: columns.length > 0 && prng.chance(0.5) ? prng.integer(0, columns.length - 1) : null,
  };
}

const column = (name: string, type = 'text', key = false): ColumnShape => ({
  name,
  type,
  key,
  nullable: !key,
});
const table = (...columns: ColumnShape[]): TableShape => ({
  schema: 'public',
  name: 't',
  columns,
  keyColumns: columns.flatMap(({ key }, i) => (key ? [i] : [])),
  tenantColumn: null,
});

vi.setConfig({ testTimeout: 60_000 });

describe('schemas', () => {
  it('carry the shape, whatever its columns are called, and are Avro to avsc', () =>
    replayable((prng) => {
      for (let i = 0; i < cases(500, 10_000); i++) {
        const shape = anyShape(prng);
        const topic = `prefix.${prng.pick(['a', 'a b', '', '1st', '.'])}.${prng.pick(['t', '9', '-'])}`;
        const value = valueSchema(shape, topic);
        expect(shapeOfSchema(value)).toEqual(shape);
        expect(compileEnvelopeDecoder(value).shape).toEqual(shape);
        avscType(JSON.parse(value));
        const key = keySchema(shape, topic);
        expect(key === null).toBe(shape.keyColumns.length === 0);
        if (key !== null) avscType(JSON.parse(key));
        expect(sameSchema(value, valueSchema(shape, topic))).toBe(true);
      }
    }));

  it('a key of two unbounded numerics names its Avro type once', () => {
    const key = keySchema(table(column('a', 'numeric', true), column('b', 'numeric', true)), 'p.public.t')!;
    expect(() => avscType(JSON.parse(key))).not.toThrow();
  });

  it('two columns with one Avro name are refused, not merged', () => {
    const shape = table(column('a-b'), column('a_b'));
    expect(() => valueSchema(shape, 'p.public.t')).toThrow(expect.objectContaining({ code: 'TM208' }));
  });

  it('a type without a codec is refused by the column’s name', () => {
    const refused = expect.objectContaining({ code: 'TM208', message: expect.stringContaining('column b') });
    expect(() => valueSchema(table(column('a'), column('b', 'money')), 'p.public.t')).toThrow(refused);
  });

  it('a new enum label is the same schema; a type, a column, an order or a key is another', () => {
    const severity = (labels: string[]): ColumnShape => ({
      ...column('s', 'app.severity'),
      enum: { schema: 'app', name: 'severity', labels },
    });
    const text = (...columns: ColumnShape[]) => valueSchema(table(...columns), 'p.public.t');
    const before = text(column('id', 'integer', true), severity(['low']));
    expect(sameSchema(before, text(column('id', 'integer', true), severity(['low', 'high'])))).toBe(true);
    for (const other of [
      text(column('id', 'bigint', true), severity(['low'])),
      text(column('id', 'integer', true), severity(['low']), column('x')),
      text(severity(['low']), column('id', 'integer', true)),
      text(column('id', 'integer'), severity(['low'])),
    ])
      expect(sameSchema(before, other)).toBe(false);
  });

  it('a schema that is not ours is TM206', () => {
    for (const schema of ['"string"', '{"type":"record","name":"x","fields":[]}'])
      expect(() => shapeOfSchema(schema)).toThrow(expect.objectContaining({ code: 'TM206' }));
  });
});

describe('headers', () => {
  it('a column called " is not taken for one called \\ (nodejs/node#63785)', () => {
    const shape = table(column('a'), column('"'), column('\\'));
    const header = (name: string) => JSON.stringify({ a: '1', [name]: '2' });
    for (let i = 0; i < 3; i++) {
      expect(applyHeaders([null, null, null], shape, null, header('\\'))).toEqual(['1', null, '2']);
      JSON.parse(header('\\'));
      expect(applyHeaders([null, null, null], shape, null, header('"'))).toEqual(['1', '2', null]);
    }
  });

  it('whatever columns and texts hold, they come back', () =>
    replayable((prng) => {
      const shape = table(...hostileNames.map((name) => column(name)));
      for (let i = 0; i < cases(500, 5000); i++) {
        const exact = Object.create(null) as Record<string, string>;
        for (const name of prng.some(hostileNames, 5)) exact[name] = prng.pick(hostileTexts);
        const unchanged = prng.some(hostileNames, 3).filter((name) => !(name in exact));
        const row = applyHeaders(
          hostileNames.map(() => null),
          shape,
          JSON.stringify(unchanged),
          JSON.stringify(exact),
        );
        expect(row).toEqual(
          hostileNames.map((name) => (unchanged.includes(name) ? undefined : (exact[name] ?? null))),
        );
      }
    }));
});

describe('what a consumer refuses', () => {
  it('bytes without the registry header', () => {
    for (const bytes of [Buffer.alloc(0), Buffer.alloc(4), Buffer.from([1, 0, 0, 0, 1])])
      expect(() => schemaIdOf(bytes)).toThrow(expect.objectContaining({ code: 'TM206' }));
  });

  it('a header that names a column the schema lacks', () => {
    const shape = table(column('a'));
    const refused = expect.objectContaining({ code: 'TM206' });
    expect(() => applyHeaders([null], shape, '["b"]', null)).toThrow(refused);
    expect(() => applyHeaders([null], shape, null, '{"b":"1"}')).toThrow(refused);
  });
});
