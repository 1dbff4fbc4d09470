/**
 * What a table's next schema asks of its partition spec (Iceberg specification, "Partition Evolution"): catalogs and readers
 * refuse a table whose spec works on a column that is not there.
 */
import type { PartitionField } from '../spec/partition-spec.ts';
import { fieldById, type Schema } from '../spec/schema.ts';
import { defaultSpec, type TableMetadata } from '../spec/table-metadata.ts';
import { canTransform, parseTransform } from '../spec/transforms.ts';
import type { TableUpdate } from '../spec/updates.ts';

export interface SpecUpdates {
  /** Before the schema: what works on columns that it does not have goes. */
  before: TableUpdate[];
  /** Behind it: the same on the fields that these columns have in it. */
  behind: TableUpdate[];
}

/** @param moved fields of columns that go on in another field, by the field that they had */
export function specUpdates(
  metadata: TableMetadata,
  schema: Schema,
  moved: ReadonlyMap<number, number>,
): SpecUpdates {
  const { fields } = defaultSpec(metadata);
  const stays = ({ 'source-id': source, transform }: PartitionField) =>
    transform === 'void' ||
    (fieldById(schema, source) !== undefined && (moved.get(source) ?? source) === source);
  const kept = fields.filter(stays);
  const names = new Set([
    ...metadata['partition-specs'].flatMap((spec) => spec.fields.map(({ name }) => name)),
    ...schema.fields.map(({ name }) => name),
  ]);
  let last = metadata['last-partition-id'];
  const anew = fields.flatMap((field): PartitionField[] => {
    const source = stays(field) ? undefined : moved.get(field['source-id']);
    const type = source === undefined ? undefined : fieldById(schema, source)?.type;
    if (typeof type !== 'string' || !canTransform(parseTransform(field.transform), type)) return [];
    last += 1;
    // Of another id, so of another name: engines lay the fields of all specs beside each other.
    let name = `${field.name}~`;
    while (names.has(name)) name += '~';
    names.add(name);
    return [{ ...field, 'source-id': source!, 'field-id': last, name }];
  });
  return {
    before: kept.length === fields.length ? [] : specOf(kept),
    behind: anew.length === 0 ? [] : specOf([...kept, ...anew]),
  };
}

function specOf(fields: PartitionField[]): TableUpdate[] {
  return [
    { action: 'add-spec', spec: { 'spec-id': 0, fields } },
    { action: 'set-default-spec', 'spec-id': -1 },
  ];
}
