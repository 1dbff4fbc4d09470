/** The source's rows as its contract publishes them: hashed and masked columns become what the stream made of them. */
import { type TableShape, tableName } from '../connector/shape.ts';
import type { Row } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import { ColumnProtector, hashKeyId } from '../replicate/column-protection.ts';

/**
 * Protects the rows in place. Rows follow the shape's columns.
 * @throws TidemarkError TM240 where the key is not the one that the shape's hashes were made with
 */
export async function* protectedRows(
  rows: AsyncIterable<Row[]>,
  shape: TableShape,
  hashKey: string | null,
): AsyncGenerator<Row[]> {
  const columns = shape.columns.flatMap(({ protection }, index) =>
    protection ? [{ index, policy: protection.policy, key: protection.key }] : [],
  );
  const keyId = hashKey === null ? null : hashKeyId(hashKey);
  for (const { index, key } of columns) {
    if (key === undefined || key === keyId) continue;
    throw new TidemarkError(
      'TM240',
      `${tableName(shape)}.${shape.columns[index]!.name} was hashed with key ${key}, privacy.hash.key is ${keyId ?? 'not set'}`,
    );
  }
  const protector = new ColumnProtector(hashKey);
  for await (const batch of rows) {
    for (const row of columns.length > 0 ? batch : []) {
      const tenant = shape.tenantColumn === null ? null : row[shape.tenantColumn]!;
      for (const { index, policy } of columns) {
        const cell = row[index]!;
        if (cell !== null) row[index] = protector.protect(policy, cell, tenant);
      }
    }
    yield batch;
  }
}
