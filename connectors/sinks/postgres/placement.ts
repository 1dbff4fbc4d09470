/**
 * Where the source's tables and types go (`schema.map`). A Window's shapes are placed once, on their way in; from there on
 * the sink knows the destination's names alone, and asks here for the source's own where it has to name them.
 */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type TableId, type TableShape, type TypeParts, tableName } from '../../../src/connector/shape.ts';
import { quoteName, quoteTable, typeSchema } from './quote.ts';

/** A part of a name: plain, or in double quotes as in SQL. */
const part = String.raw`(?:"(?:[^"]|"")+"|[^.*,"=\s]+)`;
const rule = new RegExp(`^(${part})(?:\\.(${part}))?\\s*=\\s*(${part})(?:\\.(${part}))?$`);

const remedy =
  'Write `schema=schema` for a schema with its tables and types, `schema.table=schema.table` for one table, separated by commas.';

export class Placement {
  readonly #schemas: ReadonlyMap<string, string>;
  /** By the source's quoted name. */
  readonly #tables: ReadonlyMap<string, TableId>;
  /** The source's name of each table that was placed, by the destination's quoted name. */
  readonly #sources = new Map<string, TableId>();
  readonly #shapes = new WeakMap<TableShape, TableShape>();

  private constructor(schemas: ReadonlyMap<string, string>, tables: ReadonlyMap<string, TableId>) {
    this.#schemas = schemas;
    this.#tables = tables;
  }

  /** @throws TidemarkError TM101 for a rule that is none, or two that clash */
  static parse(rules: readonly string[]): Placement {
    const schemas = new Map<string, string>();
    const tables = new Map<string, TableId>();
    const taken = new Map<string, string>();
    for (const text of rules) {
      const { from, to, table } = parseRule(text);
      const known = table === null ? schemas.has(from) : tables.has(quoteTable(table.from));
      if (known) throw wrong(`${JSON.stringify(text)} maps what another rule maps`);
      const target = table === null ? quoteName(to) : quoteTable(table.to);
      const other = taken.get(target);
      if (other !== undefined)
        throw wrong(
          `${JSON.stringify(other)} and ${JSON.stringify(text)} both lead to ${target}`,
          table === null
            ? 'Tables and types of two schemas could meet there: map single tables (`schema.table=schema.table`).'
            : undefined,
        );
      taken.set(target, text);
      if (table === null) schemas.set(from, to);
      else tables.set(quoteTable(table.from), table.to);
    }
    return new Placement(schemas, tables);
  }

  /** The shape under the destination's names. */
  place(shape: TableShape): TableShape {
    if (this.#schemas.size === 0 && this.#tables.size === 0) return shape;
    const to = this.table(shape);
    const known = this.#sources.get(quoteTable(to));
    if (known && quoteTable(known) !== quoteTable(shape)) throw this.clash(shape, known, to);
    this.#sources.set(quoteTable(to), { schema: shape.schema, name: shape.name });
    const placed = this.rename(shape);
    this.#shapes.set(placed, shape);
    return placed;
  }

  /** The same of a shape that nobody is merging now. */
  rename(shape: TableShape): TableShape {
    const { schema, name } = this.table(shape);
    return { ...shape, schema, name, columns: shape.columns.map((column) => this.#parts(column)) };
  }

  table({ schema, name }: TableId): TableId {
    return this.#tables.get(quoteTable({ schema, name })) ?? { schema: this.#schema(schema), name };
  }

  /** The source's own shape of one that `place` gave. */
  shapeOf(placed: TableShape): TableShape {
    return this.#shapes.get(placed) ?? placed;
  }

  /** The source's name of a table that `place` gave. */
  sourceOf({ schema, name }: TableId): TableId {
    return this.#sources.get(quoteTable({ schema, name })) ?? { schema, name };
  }

  clash(one: TableId, other: TableId, to: TableId): TidemarkError {
    return new TidemarkError(
      'TM405',
      `${tableName(one)} and ${tableName(other)} of the source both go to ${tableName(to)}`,
      { remedy: 'Give one of them another place in schema.map (`schema.table=schema.table`).' },
    );
  }

  #schema(name: string): string {
    return this.#schemas.get(name) ?? name;
  }

  /** Types that the sink makes go with their schema; extensions and base types stay where they are. */
  #parts<T extends TypeParts & { type: string; base?: string }>(column: T): T {
    const { enum: labels, composite, range } = column;
    if (!labels && !composite && !range) return column;
    const renamed = { ...column, type: this.#type(column.type) };
    if (column.base !== undefined) renamed.base = this.#type(column.base);
    if (labels) renamed.enum = { ...labels, schema: this.#schema(labels.schema) };
    if (composite) {
      renamed.composite = {
        ...composite,
        schema: this.#schema(composite.schema),
        attributes: composite.attributes.map((attribute) => this.#parts(attribute)),
      };
    }
    if (range) {
      renamed.range = { ...range, schema: this.#schema(range.schema), subtype: this.#type(range.subtype) };
    }
    return renamed;
  }

  #type(text: string): string {
    const schema = typeSchema(text);
    const to = schema === null ? undefined : this.#schemas.get(schema);
    if (schema === null || to === undefined) return text;
    const length = text.startsWith('"') ? quoteName(schema).length : schema.length;
    return `${quoteName(to)}${text.slice(length)}`;
  }
}

function parseRule(text: string) {
  const parts = rule.exec(text.trim());
  if (!parts) throw wrong(`${JSON.stringify(text)} is no rule`);
  const [from, name, to, toName] = parts.slice(1).map((each) => each && unquoted(each));
  if ((name === undefined) !== (toName === undefined))
    throw wrong(`${JSON.stringify(text)} maps a schema to a table, or a table to a schema`);
  for (const each of [to!, toName ?? to!]) {
    if (Buffer.byteLength(each) > 63)
      throw wrong(`${JSON.stringify(text)}: the name is too long for Postgres`);
  }
  if (to === '_tidemark' || to === 'information_schema' || to!.startsWith('pg_'))
    throw wrong(`${JSON.stringify(text)}: the schema ${to} is not for tables of a source`);
  const table =
    name === undefined ? null : { from: { schema: from!, name }, to: { schema: to!, name: toName! } };
  return { from: from!, to: to!, table };
}

function unquoted(text: string): string {
  return text.startsWith('"') ? text.slice(1, -1).replaceAll('""', '"') : text;
}

function wrong(what: string, how = remedy): TidemarkError {
  return new TidemarkError('TM101', `schema.map: ${what}`, { remedy: how });
}
