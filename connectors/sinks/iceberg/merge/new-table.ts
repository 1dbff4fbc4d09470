/** What a table is made as: its columns, its partitions, and the properties that say whose it is. */
import type { TableShape } from '../../../../src/connector/shape.ts';
import { dateColumn } from '../../../object-log/partition.ts';
import type { TableCreation } from '../catalog/catalog.ts';
import type { JsonObject } from '../catalog/exact-json.ts';
import type { IcebergSettings } from '../options.ts';
import { creationProperties, type Owner, ownerProperties } from '../progress/properties.ts';
import { firstPartitionFieldId, type PartitionField, unpartitioned } from '../spec/partition-spec.ts';
import { houseNames } from './layout.ts';
import { fieldNames, nextLayout } from './next-layout.ts';

export function newTable(
  shape: TableShape,
  owner: Owner,
  settings: Pick<IcebergSettings, 'partitionByTenant' | 'dates'>,
): Omit<TableCreation, 'identifier'> {
  const nothing = { type: 'struct' as const, 'schema-id': 0, fields: [] };
  const { schema } = nextLayout(null, nothing, 0, shape);
  return {
    schema: schema as unknown as JsonObject,
    partitionSpec: { 'spec-id': 0, fields: partitionFields(shape, settings) } as unknown as JsonObject,
    properties: {
      ...ownerProperties(owner),
      ...creationProperties,
      'format-version': '2',
      'write.parquet.compression-codec': 'zstd',
      // Files are passed over by it when a snapshot ends; its first characters are the same everywhere.
      [`write.metadata.metrics.column.${houseNames.position}`]: 'full',
    },
  };
}

/** By tenant and by the day of the event: rows of a key are always in the same partition. */
function partitionFields(
  shape: TableShape,
  { partitionByTenant, dates }: Pick<IcebergSettings, 'partitionByTenant' | 'dates'>,
): PartitionField[] {
  if (shape.keyColumns.length === 0) return unpartitioned.fields;
  const names = fieldNames(shape);
  const fields: PartitionField[] = [];
  const add = (column: number, transform: string, suffix: string) =>
    fields.push({
      'source-id': column + 1,
      'field-id': firstPartitionFieldId + fields.length,
      name: `${names[column]}${suffix}`,
      transform,
    });
  const { tenantColumn } = shape;
  if (partitionByTenant && tenantColumn !== null && shape.keyColumns.includes(tenantColumn))
    add(tenantColumn, 'identity', '');
  const date = dateColumn(shape, dates);
  if (date !== null) add(date, 'day', '_day');
  // A partition field may have its column's name only where it is the column itself.
  return fields.map((field) =>
    field.transform !== 'identity' && names.includes(field.name)
      ? { ...field, name: `${field.name}~` }
      : field,
  );
}
