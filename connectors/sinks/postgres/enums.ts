/** The replica's enum types, made on first sight with all labels; labels.ts adds to them. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type EnumType, type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { Session } from './client.ts';
import { asSinkFailure } from './failures.ts';
import { quoteName, quoteTable, quoteText } from './quote.ts';
import { enumsOf } from './types.ts';

/** Makes the enum types that are missing. @throws TidemarkError TM405 */
export async function ensureEnums(
  session: Session,
  shapes: readonly TableShape[],
  destination: string,
  extra: ReadonlyMap<string, ReadonlySet<string>>,
): Promise<void> {
  const wanted = new Map<string, { type: EnumType; shape: TableShape }>();
  for (const shape of shapes) {
    for (const type of enumsOf(shape)) wanted.set(quoteTable(type), { type, shape });
  }
  if (wanted.size === 0) return;
  const list = [...wanted.values()];
  const [result] = await session.run(`SELECT t.typtype
FROM (VALUES ${list.map(({ type }, i) => `(${i}, ${quoteText(type.schema)}, ${quoteText(type.name)})`).join(', ')}) AS w (i, schema_name, type_name)
LEFT JOIN pg_namespace n ON n.nspname = w.schema_name
LEFT JOIN pg_type t ON t.typnamespace = n.oid AND t.typname = w.type_name
ORDER BY w.i`);
  const statements: string[] = [];
  for (const [i, { type, shape }] of list.entries()) {
    const [kind] = result!.rows[i]!;
    const labels = [...new Set([...type.labels, ...(extra.get(quoteTable(type)) ?? [])])];
    if (kind === null) {
      statements.push(
        `CREATE SCHEMA IF NOT EXISTS ${quoteName(type.schema)}`,
        `CREATE TYPE ${quoteTable(type)} AS ENUM (${labels.map(quoteText).join(', ')})`,
      );
      continue;
    }
    if (kind !== 'e') {
      throw new TidemarkError(
        'TM405',
        `${tableName(shape)} needs the enum ${quoteTable(type)}, which exists as another kind of type`,
        { remedy: `Rename ${quoteTable(type)} in the destination.` },
      );
    }
  }
  try {
    if (statements.length > 0) await session.run(...statements);
  } catch (error) {
    throw asSinkFailure(
      error,
      destination,
      list.map(({ shape }) => shape),
    );
  }
}
