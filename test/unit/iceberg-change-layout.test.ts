/** Fields of append-only tables over the shapes that a table has. */
import { expect, test } from 'vitest';
import { ingestField, nextChangeLayout } from '../../connectors/sinks/iceberg/append/change-layout.ts';
import type { NestedField, Schema } from '../../connectors/sinks/iceberg/spec/schema.ts';
import { TidemarkError } from '../../src/connector/failure.ts';
import { columnOf, shapeOf } from '../conformance/example-tables.ts';

const empty: Schema = { type: 'struct', 'schema-id': 0, fields: [] };
const first = shapeOf('t', ['id bigint key', 'note text', 'n integer']);

function idsOf({ fields }: Schema): Map<string, number> {
  return new Map(fields.map(({ name, id }) => [name, id]));
}

test('a field is added and never changed: dropped columns keep theirs, and a type of another kind gets a new one', () => {
  const begun = nextChangeLayout(null, empty, 0, first);
  const second = shapeOf('t', ['id bigint key', columnOf('n', 'text', 3), columnOf('late', 'date', 4)]);
  const next = nextChangeLayout(begun.layout, begun.schema, begun.lastColumnId, second, 'since');
  const [before, after] = [idsOf(begun.schema), idsOf(next.schema)];
  expect(next.schema.fields.slice(0, begun.schema.fields.length)).toEqual(begun.schema.fields);
  expect([...after.keys()].slice(before.size)).toEqual(['n~2', 'late']);
  expect(Math.min(after.get('n~2')!, after.get('late')!)).toBeGreaterThan(begun.lastColumnId);
  expect(next.layout.reshaped).toBe(true);
  // The same shape again.
  const same = nextChangeLayout(next.layout, next.schema, next.lastColumnId, second);
  expect(same.schemaChanged).toBe(false);
  expect(same.layout).toEqual(next.layout);
});

test('ids that a catalog gave anew, and columns of somebody else’s, are what it goes on with', () => {
  const { schema } = nextChangeLayout(null, empty, 0, first);
  const theirs: NestedField = { id: 900, name: 'loaded_by', required: false, type: 'string' };
  const moved = {
    ...schema,
    fields: [...schema.fields.map((field) => ({ ...field, id: field.id + 100 })), theirs],
  };
  const adopted = nextChangeLayout(null, moved, 900, first);
  expect(adopted.schemaChanged).toBe(false);
  expect(adopted.layout.ids[ingestField]).toBe(idsOf(moved).get(ingestField));
  expect(Object.hasOwn(adopted.layout.ids, 'loaded_by')).toBe(false);
});

test.each([
  { what: 'a column that must be filled', field: { name: 'loaded_by', required: true, type: 'string' } },
  { what: 'a column of a name and another type', field: { name: 'late', required: false, type: 'string' } },
] as const)('$what, of somebody else’s, is TM405', ({ field }) => {
  const begun = nextChangeLayout(null, empty, 0, first);
  const schema = { ...begun.schema, fields: [...begun.schema.fields, { id: 900, ...field }] };
  const shape = shapeOf('t', ['id bigint key', 'note text', 'n integer', 'late date']);
  const refused = () => nextChangeLayout(begun.layout, schema, 900, shape);
  expect(refused).toThrow(TidemarkError);
  expect(refused).toThrow(/somebody else/);
});
