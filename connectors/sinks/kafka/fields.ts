/** The fields of a table's records: its columns, and what is told beside them. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type ColumnShape, type TableShape, tableName } from '../../../src/connector/shape.ts';
import { type Form, formOf, text } from './forms.ts';
import type { MetadataField } from './options.ts';
import type { RowSettings } from './settings.ts';

export interface Field {
  name: string;
  form: Form;
}

export interface TableFields {
  shape: TableShape;
  /** As the shape's columns. */
  columns: readonly Field[];
  metadata: readonly (Field & { of: MetadataField })[];
  /** Of the record key, in key order; null for a table without a key. */
  key: readonly KeyField[] | null;
  /** The key is null and order is all that tells records apart. */
  keyless: boolean;
}

/** Kept from the table's first record on: compaction and partitions go by the bytes of the key. */
export interface KeyField {
  name: string;
  /** ColumnShape.number. */
  number?: number;
  kind: Form['kind'];
}

/**
 * @param known the key that the topic has records of
 * @throws TidemarkError TM405 where a column has a name of ours, or the key is another one than the topic's
 */
export function fieldsOf(
  shape: TableShape,
  settings: RowSettings,
  known: readonly KeyField[] | null,
): TableFields {
  const keyless = shape.keyColumns.length === 0;
  const columns = shape.columns.map((column) => ({ name: column.name, form: formOf(column, settings) }));
  const metadata = metadataOf(settings, keyless).map((of) => ({
    of,
    name: `${settings.metadataPrefix}${of}`,
    form: of === 'commit_time' ? ({ kind: 'int64' } as const) : text,
  }));
  const taken = columns.find(({ name }) => metadata.some((field) => field.name === name));
  if (taken) {
    throw new TidemarkError('TM405', `${tableName(shape)} has a column ${taken.name}, as a field of ours`, {
      remedy:
        'Set metadata.prefix to something that no column begins with, or take the field out of metadata.fields.',
    });
  }
  return { shape, columns, metadata, keyless, key: keyless ? null : keyOf(shape, settings, known) };
}

function metadataOf({ metadata, deletes }: RowSettings, keyless: boolean): MetadataField[] {
  const fields = new Set(metadata);
  if (keyless || deletes !== 'tombstone') fields.add('deleted');
  // An update of a table without a key is two records: only the op tells that they are one change.
  if (keyless) fields.add('op');
  return [...fields];
}

function keyOf(shape: TableShape, settings: RowSettings, known: readonly KeyField[] | null): KeyField[] {
  const current = shape.keyColumns.map((index) => {
    const column = shape.columns[index]!;
    const { kind } = formOf(column, settings);
    return {
      name: column.name,
      // JSON without schemas spells all integers alike.
      kind: settings.format === 'json' && !settings.schemas && kind.startsWith('int') ? 'int64' : kind,
      ...(column.number === undefined ? {} : { number: column.number }),
    } satisfies KeyField;
  });
  if (known === null) return current;
  const same =
    known.length === current.length &&
    known.every(
      (field, i) =>
        field.kind === current[i]!.kind && sameColumn(field, shape.columns[shape.keyColumns[i]!]!),
    );
  if (!same) {
    throw new TidemarkError(
      'TM405',
      `the key of ${tableName(shape)} changed, and its topic is found by the old one`,
      {
        remedy:
          'Give the table to a new destination with another topic.name: records of one topic have one key all along.',
      },
    );
  }
  // A renamed column keeps its name in the key.
  return [...known];
}

function sameColumn({ name, number }: KeyField, column: ColumnShape): boolean {
  return number !== undefined && column.number !== undefined
    ? number === column.number
    : name === column.name;
}
