/** A consumer rebuilds the shape from the registry alone; Avro's names never lose or merge a column. */
import { describe, expect, it, vi } from 'vitest';
import type { ColumnShape, TableShape } from '../../src/connector/shape.ts';
import {
  columnCodecs,
  fieldNames,
  keySchema,
  registeredFields,
  sameForm,
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
  const columns = names.map((name): ColumnShape => {
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

  it('columns with one Avro name get fields of their own; the attribute says whose they are', () => {
    const names = ['a-b', 'a_b', 'a b', 'a_b_2', 'ä', '_'];
    expect(fieldNames(names.map((name) => ({ name })))).toEqual([
      'a_b',
      'a_b_3',
      'a_b_4',
      'a_b_2',
      '_',
      '__2',
    ]);
    const shape = table(...names.map((name) => column(name)), column('a+b', 'integer', true));
    const schema = valueSchema(shape, 'p.public.t');
    expect(shapeOfSchema(schema)).toEqual(shape);
    expect(JSON.parse(schema).tidemark.columns[1]).toMatchObject({ name: 'a_b', field: 'a_b_3' });
    const value = JSON.parse(schema).fields[0].type[1];
    const key = JSON.parse(keySchema(shape, 'p.public.t')!);
    expect(key.fields[0].name).toBe(value.fields.at(-1).name);
    avscType(JSON.parse(schema));
  });

  it('a type that is not known by name is a string; its structure comes back whole', () => {
    const shape = table(
      {
        ...column('c', 'app.pair[]'),
        composite: { schema: 'app', name: 'pair', attributes: [{ name: 'a', type: 'integer' }] },
      },
      { ...column('d', 'app.amount'), base: 'numeric(9,3)' },
      { ...column('k', 'interval', true), form: 'text' },
      column('r', 'int4range'),
      { ...column('v', 'public.vector'), extension: { name: 'vector', schema: 'public', type: 'vector' } },
    );
    const schema = valueSchema(shape, 'p.public.t');
    expect(shapeOfSchema(schema)).toEqual(shape);
    const fields = JSON.parse(schema).fields[0].type[1].fields as { type: unknown }[];
    expect(fields.map(({ type }) => type)).toEqual([
      ['null', { type: 'array', items: ['null', 'string'] }],
      ['null', expect.objectContaining({ type: 'bytes', scale: 3 })],
      'string',
      ['null', 'string'],
      ['null', 'string'],
    ]);
  });

  it('a schema from before types had structure is read as it was written', () => {
    const old = JSON.parse(valueSchema(table(column('k', 'text[]', true)), 'p.public.t'));
    expect(old.tidemark.columns).toEqual([{ name: 'k', type: 'text[]', key: true }]);
    const { shape } = compileEnvelopeDecoder(JSON.stringify(old));
    expect(columnCodecs(shape)[0]!.schema).toEqual({ type: 'array', items: ['null', 'string'] });
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

describe('a registered schema', () => {
  it.each([...types, 'hstore', 'point', 'timestamp(3) without time zone'])(
    'gives the form of a column of type %s back, key or not',
    (type) => {
      const shape = table(column('k', type, true), column('v', type), column('w', type));
      const fields = registeredFields(valueSchema(shape, 'topic'));
      columnCodecs(shape).forEach(({ schema }, i) => {
        expect(sameForm(fields.get(fieldNames(shape.columns)[i]!), schema)).toBe(true);
      });
    },
  );
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
