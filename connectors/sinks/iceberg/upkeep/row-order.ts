/** The order of the rows within a data file: the table's own sort order, or that of its key. */

import { type ChangeLayout, positionField } from '../append/change-layout.ts';
import { changesOrder } from '../merge/history.ts';
import { Layout } from '../merge/layout.ts';
import { columnName } from '../plan/read-columns.ts';
import { propertyNames } from '../progress/properties.ts';
import { currentSchema, type TableMetadata } from '../spec/table-metadata.ts';

export interface RowOrder {
  fieldIds: number[];
  /** Terms of ORDER BY, over columnName(). */
  sql: string[];
  /** Of the table's sort order, where it is that. */
  id: number | null;
}

export function rowOrder(metadata: TableMetadata): RowOrder {
  const { fields } = currentSchema(metadata);
  const has = (id: number) => fields.some((field) => field.id === id && typeof field.type === 'string');
  const own = metadata['sort-orders'].find((each) => each['order-id'] === metadata['default-sort-order-id']);
  const terms = own?.fields ?? [];
  if (terms.length > 0 && terms.every((each) => each.transform === 'identity' && has(each['source-id']))) {
    return {
      fieldIds: terms.map((each) => each['source-id']),
      sql: terms.map(
        (each) =>
          `${columnName(each['source-id'])} ${each.direction} ${each['null-order'].replace('-', ' ')}`,
      ),
      id: own!['order-id'],
    };
  }
  const fieldIds = ownOrder(metadata).filter(has);
  return { fieldIds, sql: fieldIds.map(columnName), id: null };
}

function ownOrder(metadata: TableMetadata): number[] {
  const { layout, changes } = propertyNames;
  const { [layout]: merged, [changes]: appended } = metadata.properties;
  if (merged !== undefined) return Layout.parse(merged).keyIds;
  if (appended === undefined) return changesOrder(currentSchema(metadata).fields);
  return [(JSON.parse(appended) as ChangeLayout).ids[positionField]!];
}
