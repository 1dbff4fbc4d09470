/** Partition values of rows in DuckDB. */
import {
  BIGINT,
  BLOB,
  DATE,
  DECIMAL,
  type DuckDBConnection,
  DuckDBScalarFunction,
  type DuckDBType,
  INTEGER,
  TIME,
  TIMESTAMP,
  TIMESTAMPTZ,
  UUID,
  VARCHAR,
} from '@duckdb/node-api';
import { malformed } from '../failures.ts';
import type { BoundPartitionField } from '../spec/partition-spec.ts';
import { applyTransform, type Transform } from '../spec/transforms.ts';
import { decimalParts, type PrimitiveType, typeKind } from '../spec/types.ts';
import { duckdbType } from './duckdb-type.ts';
import { fromDuckdb, toDuckdb } from './duckdb-values.ts';

/**
 * SQL of a partition field's value. What DuckDB has a function for, it does itself; for the rest it calls
 * spec/transforms.ts, which takes 0.13 µs a row.
 * @param source SQL of the source column
 * @throws TidemarkError TM405 for an unknown transform
 */
export function partitionValue(
  connection: DuckDBConnection,
  field: BoundPartitionField,
  source: string,
): string {
  const { transform, sourceType, resultType } = field;
  const result = duckdbType(resultType);
  if (transform.kind === 'void' || sourceType === null) return `CAST(NULL AS ${result})`;
  const column = `CAST(${source} AS ${duckdbType(sourceType)})`;
  switch (transform.kind) {
    case 'identity':
      return column;
    case 'unknown':
      throw malformed('the table is partitioned by a transform of a later version');
    case 'year':
      return `CAST(year(${moment(column, sourceType)}) - 1970 AS INTEGER)`;
    case 'month':
      return `CAST((year(${moment(column, sourceType)}) - 1970) * 12 + month(${moment(column, sourceType)}) - 1 AS INTEGER)`;
    case 'day':
      return `CAST(${moment(column, sourceType)} AS DATE)`;
    case 'hour':
      return `CAST(date_diff('hour', TIMESTAMP '1970-01-01', ${moment(column, sourceType)}) AS INTEGER)`;
    case 'bucket':
    case 'truncate':
      if (transform.kind === 'truncate' && sourceType === 'string')
        return `left(${column}, ${transform.width})`;
      return `${registered(connection, transform, sourceType, resultType)}(${column})`;
  }
}

/** In UTC, whatever the session's time zone. */
function moment(column: string, type: PrimitiveType): string {
  return type === 'timestamptz' ? `make_timestamp(epoch_us(${column}))` : column;
}

/** Registering a function again replaces it. @returns its name */
function registered(
  connection: DuckDBConnection,
  transform: Extract<Transform, { kind: 'bucket' | 'truncate' }>,
  source: PrimitiveType,
  result: PrimitiveType,
): string {
  const parameter = transform.kind === 'bucket' ? transform.buckets : transform.width;
  const name = `iceberg_${transform.kind}_${parameter}_${source.replace(/\W+/g, '_')}`;
  connection.registerScalarFunction(
    DuckDBScalarFunction.create({
      name,
      parameterTypes: [vectorType(source)],
      returnType: vectorType(result),
      mainFunction(_info, input, output) {
        const column = input.getColumnVector(0);
        for (let row = 0; row < input.rowCount; row += 1) {
          const value = applyTransform(transform, source, fromDuckdb(column.getItem(row)));
          output.setItem(row, toDuckdb(result, value));
        }
        output.flush();
      },
    }),
  );
  return name;
}

const vectorTypes: Record<string, DuckDBType> = {
  int: INTEGER,
  long: BIGINT,
  date: DATE,
  time: TIME,
  timestamp: TIMESTAMP,
  timestamptz: TIMESTAMPTZ,
  string: VARCHAR,
  uuid: UUID,
  binary: BLOB,
};

/** Of the types that bucket and truncate take and give. */
function vectorType(type: PrimitiveType): DuckDBType {
  const decimal = decimalParts(type);
  return decimal ? DECIMAL(decimal.precision, decimal.scale) : vectorTypes[typeKind(type)]!;
}
