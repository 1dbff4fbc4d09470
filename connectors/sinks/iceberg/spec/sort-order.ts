/** Sort orders as their JSON (Iceberg specification, "Sorting", Appendix C). */

import type { Json } from '../catalog/exact-json.ts';
import { malformed } from '../failures.ts';
import { JsonReader } from './json-reader.ts';

export interface SortField {
  transform: string;
  'source-id': number;
  direction: 'asc' | 'desc';
  'null-order': 'nulls-first' | 'nulls-last';
}

export interface SortOrder {
  'order-id': number;
  fields: SortField[];
}

/** Its id is reserved. */
export const unsorted: SortOrder = { 'order-id': 0, fields: [] };

/** @throws TidemarkError TM405 */
export function parseSortOrder(json: Json | undefined, what: string): SortOrder {
  const reader = new JsonReader(json, what);
  return {
    'order-id': reader.integer('order-id'),
    fields: reader.list('fields', (each, fieldWhat) => {
      const field = new JsonReader(each, fieldWhat);
      return {
        transform: field.text('transform'),
        'source-id': field.integer('source-id'),
        direction: oneOf(field, 'direction', ['asc', 'desc']),
        'null-order': oneOf(field, 'null-order', ['nulls-first', 'nulls-last']),
      };
    }),
  };
}

function oneOf<T extends string>(reader: JsonReader, name: string, choices: readonly T[]): T {
  const text = reader.text(name);
  const found = choices.find((each) => each === text);
  if (found === undefined) throw malformed(`${reader.what}: ${name} is none of ${choices.join(', ')}`);
  return found;
}

export function sameOrder(left: SortOrder, right: SortOrder): boolean {
  const content = ({ fields }: SortOrder) =>
    JSON.stringify(
      fields.map((each) => [each.transform, each['source-id'], each.direction, each['null-order']]),
    );
  return content(left) === content(right);
}
