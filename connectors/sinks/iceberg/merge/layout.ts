/**
 * Which field of the Iceberg table holds a column of the source, and the columns that Tidemark adds. It is kept as a table
 * property, in the commit that changes it, because names alone do not tell a rename from a drop and an add.
 */
import type { ColumnShape, TableShape } from '../../../../src/connector/shape.ts';
import { isLossy } from '../../../duckdb/fits.ts';
import { type Storage, storageOf } from '../../../object-log/storage.ts';
import type { PrimitiveType } from '../spec/types.ts';

export interface LaidColumn {
  column: ColumnShape;
  fieldId: number;
  storage: Storage;
  type: PrimitiveType;
  /** Some values have no place in the type: they are text in the column of exact values. */
  lossy: boolean;
}

/** Field ids of the columns that Tidemark adds. */
export interface HouseFields {
  /** Position of the Change that made the row's state. */
  position: number;
  /** True where the source let go of the row. */
  retired: number;
  /** JSON object: field id to Postgres' text of values that the field's type does not hold. */
  exact: number;
}

export const houseNames = {
  position: '_tidemark_position',
  retired: '_tidemark_retired',
  exact: '_tidemark_exact',
} as const;

export const houseTypes = { position: 'string', retired: 'boolean', exact: 'string' } as const;

export class Layout {
  readonly shape: TableShape;
  readonly columns: readonly LaidColumn[];
  readonly house: HouseFields;
  readonly keyed: boolean;
  /** What tells rows apart: the key, or all columns. */
  readonly matched: readonly LaidColumn[];

  /** @param ids field ids of the shape's columns */
  constructor(shape: TableShape, ids: readonly number[], house: HouseFields) {
    this.shape = shape;
    this.house = house;
    this.columns = shape.columns.map((column, i) => laidColumn(column, ids[i]!));
    this.keyed = shape.keyColumns.length > 0;
    this.matched = this.keyed ? shape.keyColumns.map((i) => this.columns[i]!) : this.columns;
  }

  static parse(text: string): Layout {
    const { shape, ids, house } = JSON.parse(text) as {
      shape: TableShape;
      ids: number[];
      house: HouseFields;
    };
    return new Layout(shape, ids, house);
  }

  print(): string {
    const ids = this.columns.map(({ fieldId }) => fieldId);
    return JSON.stringify({ shape: this.shape, ids, house: this.house });
  }

  /** Field ids of the key's columns; none of a table without a key. */
  get keyIds(): number[] {
    return this.keyed ? this.matched.map(({ fieldId }) => fieldId) : [];
  }

  /** Columns of which some values are kept as text. */
  get lossy(): LaidColumn[] {
    return this.columns.filter((each) => each.lossy);
  }
}

function laidColumn(column: ColumnShape, fieldId: number): LaidColumn {
  const storage = columnStorage(column);
  return { column, fieldId, storage, type: icebergType(storage), lossy: isLossy(storage) };
}

/** A column carried as text stays text: its earlier values are of another type. */
export function columnStorage({ carried, base, type }: ColumnShape): Storage {
  return storageOf(carried ? 'text' : (base ?? type));
}

export function icebergType({ kind, integerDigits, scale }: Storage): PrimitiveType {
  switch (kind) {
    case 'smallint':
    case 'integer':
      return 'int';
    case 'bigint':
      return 'long';
    case 'real':
      return 'float';
    case 'decimal':
      return `decimal(${integerDigits + scale},${scale})`;
    case 'bytea':
      return 'binary';
    case 'text':
      return 'string';
    default:
      return kind;
  }
}
