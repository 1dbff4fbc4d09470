/** Values between DuckDB and Iceberg: out of vectors and rows, into vectors, and out of the text of COPY's statistics. */
import {
  DuckDBBlobValue,
  DuckDBDateValue,
  DuckDBDecimalValue,
  DuckDBTimestampTZValue,
  DuckDBTimestampValue,
  DuckDBTimeValue,
  DuckDBUUIDValue,
  type DuckDBValue,
} from '@duckdb/node-api';
import { parseDays, parseTimeMicros, parseTimestampMicros } from '../spec/calendar.ts';
import { decimalParts, type PrimitiveType, typeKind, type Value } from '../spec/types.ts';

/** @param value of the DuckDB type that stands for an Iceberg type (duckdb-type.ts) */
export function fromDuckdb(value: DuckDBValue): Value | null {
  if (value === null) return null;
  if (value instanceof DuckDBDateValue) return value.days;
  if (value instanceof DuckDBTimestampValue || value instanceof DuckDBTimestampTZValue) return value.micros;
  if (value instanceof DuckDBTimeValue) return value.micros;
  if (value instanceof DuckDBDecimalValue) return value.value;
  if (value instanceof DuckDBUUIDValue) return value.toString();
  if (value instanceof DuckDBBlobValue) return value.bytes;
  return value as Value;
}

/** Of types that transforms give. */
export function toDuckdb(type: PrimitiveType, value: Value | null): DuckDBValue {
  if (value === null) return null;
  const decimal = decimalParts(type);
  if (decimal) return new DuckDBDecimalValue(value as bigint, decimal.precision, decimal.scale);
  switch (typeKind(type)) {
    case 'date':
      return new DuckDBDateValue(value as number);
    case 'binary':
      return new DuckDBBlobValue(value as Uint8Array);
    default:
      return value as DuckDBValue;
  }
}

/** Null where the text is none of the type: `infinity`. */
export function fromText(type: PrimitiveType, text: string): Value | null {
  switch (typeKind(type)) {
    case 'boolean':
      return text === 'true' || text === '1';
    case 'int':
      return Number(text);
    case 'long':
      return BigInt(text);
    case 'float':
    case 'double':
      return parseFloat(text.replace('inf', 'Infinity').replace('nan', 'NaN'));
    case 'date':
      return parseDays(text);
    case 'time':
      return parseTimeMicros(text);
    case 'timestamp':
    case 'timestamptz':
      return parseTimestampMicros(text);
    case 'decimal':
      return BigInt(text.replace('.', ''));
    case 'binary':
      return Buffer.from(text, 'hex');
    default:
      return text;
  }
}
