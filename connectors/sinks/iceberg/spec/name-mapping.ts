/**
 * Names for the columns of data files that carry no field ids: table property `schema.name-mapping.default` (Iceberg
 * specification, "Column Projection", Appendix C).
 */
import { JsonReader, readJson, readText } from './json-reader.ts';
import { childFields, type Type } from './schema.ts';

export const nameMappingProperty = 'schema.name-mapping.default';

export interface FieldMapping {
  'field-id'?: number;
  names: string[];
  fields?: FieldMapping[];
}

/** @throws TidemarkError TM405 */
export function parseNameMapping(text: string): FieldMapping[] {
  const what = `table property ${nameMappingProperty}`;
  return readMappings(new JsonReader({ mappings: readJson(text, what) }, what), 'mappings');
}

function readMappings(reader: JsonReader, name: string): FieldMapping[] {
  return reader.list(name, (each, what) => {
    const mapping = new JsonReader(each, what);
    const id = mapping.optional('field-id', () => mapping.integer('field-id'));
    const fields = mapping.optional('fields', () => readMappings(mapping, 'fields'));
    return {
      ...(id === undefined ? {} : { 'field-id': id }),
      names: mapping.list('names', readText),
      ...(fields === undefined || fields.length === 0 ? {} : { fields }),
    };
  });
}

/** Of a schema, by its names as they are now. */
export function nameMappingOf(type: Type): FieldMapping[] {
  return childFields(type).map(({ id, name, type: inner }) => {
    const fields = nameMappingOf(inner);
    return { 'field-id': id, names: [name], ...(fields.length === 0 ? {} : { fields }) };
  });
}

/** The names that a top-level field may have in a file without ids. */
export function namesOfField(mappings: readonly FieldMapping[], id: number): readonly string[] {
  return mappings.find((each) => each['field-id'] === id)?.names ?? [];
}
