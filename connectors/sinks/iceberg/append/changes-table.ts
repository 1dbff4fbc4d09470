/** An append-only table in the catalog: what it is made as, and what it says of its layout. */
import type { TableShape } from '../../../../src/connector/shape.ts';
import type { TableCreation } from '../catalog/catalog.ts';
import type { JsonObject } from '../catalog/exact-json.ts';
import { unsupported } from '../failures.ts';
import type { OpenTable } from '../lake.ts';
import { creationProperties, type Owner, ownerProperties, propertyNames } from '../progress/properties.ts';
import { firstPartitionFieldId } from '../spec/partition-spec.ts';
import { type ChangeLayout, ingestField, nextChangeLayout, positionField } from './change-layout.ts';

/** Null where no Window came into the table. @throws TidemarkError TM405 where it is one of merge mode */
export function changeLayoutOf({ identifier, metadata }: OpenTable): ChangeLayout | null {
  const { [propertyNames.layout]: merged, [propertyNames.changes]: changes } = metadata.properties;
  if (merged !== undefined) {
    throw unsupported(
      `table ${identifier.name} holds rows merged by key, and iceberg.mode is append`,
      'Give the destination another namespace (iceberg.namespace), or set iceberg.mode to merge.',
    );
  }
  return changes === undefined ? null : (JSON.parse(changes) as ChangeLayout);
}

export function newChangesTable(shape: TableShape, owner: Owner): Omit<TableCreation, 'identifier'> {
  const nothing = { type: 'struct' as const, 'schema-id': 0, fields: [] };
  const { schema, layout } = nextChangeLayout(null, nothing, 0, shape);
  const day = {
    'source-id': layout.ids[ingestField]!,
    'field-id': firstPartitionFieldId,
    name: '_ingest_day',
    transform: 'day',
  };
  return {
    schema: schema as unknown as JsonObject,
    partitionSpec: { 'spec-id': 0, fields: [day] },
    properties: {
      ...ownerProperties(owner),
      ...creationProperties,
      'format-version': '2',
      'write.parquet.compression-codec': 'zstd',
      // Its first characters are the same everywhere.
      [`write.metadata.metrics.column.${positionField}`]: 'full',
    },
  };
}
