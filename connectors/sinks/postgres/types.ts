/**
 * Types that the source's owner made, in the replica: composites and ranges are made where they are missing, a domain
 * is the type under it (its constraints held when the source took the value), and a type from an extension, or one
 * that nothing here can make, is refused with what to do.
 */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type EnumType, type TableShape, type TypeParts, tableName } from '../../../src/connector/shape.ts';
import type { Session } from './client.ts';
import { quoteName, quoteTable, quoteText, typeSchema, typeText } from './quote.ts';

/** The columns' types and those inside them, the inner ones first. */
export function* innerTypes(shape: TableShape): Generator<TypeParts> {
  for (const column of shape.columns) yield* inside(column);
}

function* inside(parts: TypeParts): Generator<TypeParts> {
  for (const attribute of parts.composite?.attributes ?? []) yield* inside(attribute);
  yield parts;
}

export function* enumsOf(shape: TableShape): Generator<EnumType> {
  for (const { enum: type } of innerTypes(shape)) if (type) yield type;
}

interface WantedType {
  schema: string;
  name: string;
  shape: TableShape;
  /** Makes it; null where only the remedy can. */
  statement: string | null;
  remedy: string;
}

function wantedTypes(shape: TableShape): WantedType[] {
  const wanted: WantedType[] = [];
  for (const { composite, range, extension } of innerTypes(shape)) {
    if (composite) {
      const attributes = composite.attributes.map(
        (attribute) =>
          `${quoteName(attribute.name)} ${typeText(shape, { ...attribute, key: false, nullable: true })}`,
      );
      const statement = `CREATE TYPE ${quoteTable(composite)} AS (${attributes.join(', ')})`;
      wanted.push({ ...composite, shape, statement, remedy: `${statement};` });
    }
    if (range) {
      const subtype = typeText(shape, { name: range.name, type: range.subtype, key: false, nullable: true });
      const multirange = quoteTable({ schema: range.schema, name: range.multirange });
      const statement = `CREATE TYPE ${quoteTable(range)} AS RANGE (SUBTYPE = ${subtype}, MULTIRANGE_TYPE_NAME = ${multirange})`;
      wanted.push({ ...range, shape, statement, remedy: `${statement};` });
    }
    if (extension) {
      const remedy = `CREATE EXTENSION ${quoteName(extension.name)} SCHEMA ${quoteName(extension.schema)};`;
      wanted.push({ schema: extension.schema, name: extension.type, shape, statement: null, remedy });
    }
  }
  return wanted;
}

/**
 * Makes what is missing, after the enums and behind the definitions' lock.
 * @throws TidemarkError TM405 with the statement that helps
 */
export async function ensureTypes(session: Session, shapes: readonly TableShape[]): Promise<void> {
  const wanted = new Map<string, WantedType>();
  for (const type of shapes.flatMap(wantedTypes)) {
    const name = quoteTable(type);
    if (!wanted.has(name)) wanted.set(name, type);
  }
  if (wanted.size > 0) await makeTypes(session, [...wanted.values()]);
  await requireForeignTypes(session, shapes);
}

async function makeTypes(session: Session, wanted: WantedType[]): Promise<void> {
  const places = wanted.map(({ schema, name }, i) => `(${i}, ${quoteText(schema)}, ${quoteText(name)})`);
  const [found] = await session.run(`SELECT t.oid IS NOT NULL
FROM (VALUES ${places.join(', ')}) AS w (i, schema_name, type_name)
LEFT JOIN pg_namespace n ON n.nspname = w.schema_name
LEFT JOIN pg_type t ON t.typnamespace = n.oid AND t.typname = w.type_name
ORDER BY w.i`);
  const statements: string[] = [];
  for (const [i, { schema, name, shape, statement, remedy }] of wanted.entries()) {
    if (found!.rows[i]![0] === 't') continue;
    if (statement === null) {
      throw new TidemarkError('TM405', `${tableName(shape)} needs the type ${quoteTable({ schema, name })}`, {
        remedy,
      });
    }
    statements.push(`CREATE SCHEMA IF NOT EXISTS ${quoteName(schema)}`, statement);
  }
  if (statements.length > 0) await session.run(...statements);
}

/** Types of other schemas that none of the above made: base types, by whatever means they came into the source. */
async function requireForeignTypes(session: Session, shapes: readonly TableShape[]): Promise<void> {
  const foreign = shapes.flatMap((shape) =>
    shape.columns
      .map((column) => ({ shape, column: column.name, type: typeText(shape, column) }))
      .filter(({ type }) => typeSchema(type) !== null),
  );
  if (foreign.length === 0) return;
  const [found] = await session.run(
    `SELECT ${foreign.map(({ type }) => `to_regtype(${quoteText(type)}) IS NOT NULL`).join(', ')}`,
  );
  const missing = foreign.find((_, i) => found!.rows[0]![i] !== 't');
  if (!missing) return;
  throw new TidemarkError(
    'TM405',
    `${tableName(missing.shape)}: column ${JSON.stringify(missing.column)} has type ${missing.type}, which the destination lacks`,
    { remedy: `Create the type ${missing.type} in the destination as the source has it.` },
  );
}
