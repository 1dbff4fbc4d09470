/**
 * Identifiers, literals and type names as SQL text. Everything here may come from a schema registry or a foreign
 * source, so nothing reaches a statement unquoted or unparsed.
 */
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { ColumnShape, TableId } from '../../../src/connector/shape.ts';
import type { Cell } from '../../../src/connector/sink.ts';

/** NAMEDATALEN - 1: Postgres cuts longer names silently, and two could become one. */
const maxNameBytes = 63;

/** @throws TidemarkError TM405 for a name that Postgres cannot hold. */
export function quoteName(name: string): string {
  if (name === '' || name.includes('\0') || Buffer.byteLength(name) > maxNameBytes) {
    throw new TidemarkError(
      'TM405',
      `the name ${JSON.stringify(name.slice(0, 80))} is not one Postgres can hold`,
      {
        remedy: `Names must have 1 to ${maxNameBytes} bytes in UTF-8.`,
      },
    );
  }
  return `"${name.replaceAll('"', '""')}"`;
}

export function quoteTable({ schema, name }: TableId): string {
  return `${quoteName(schema)}.${quoteName(name)}`;
}

/** A literal for a session with standard_conforming_strings on, where a backslash is only a backslash. */
export function quoteText(text: string): string {
  return text.includes("'") ? `'${text.replaceAll("'", "''")}'` : `'${text}'`;
}

export function quoteCell(cell: Cell): string {
  return cell === null ? 'NULL' : quoteText(cell);
}

const name = '(?:[a-z_][a-z0-9_$]*|"(?:[^"\\0]|"")+")';
const modifier = '(?:-?[0-9]+|[A-Za-z][A-Za-z0-9]*)';
const modifiers = `(?:\\(${modifier}(?:, ?${modifier})*\\))?`;
const digits = '(?:\\([0-9]+\\))?';
const field = '(?:year|month|day|hour|minute|second)';
const typeName = new RegExp(
  `^(?:${[
    'double precision',
    `(?:character|bit) varying${digits}`,
    `time(?:stamp)?${digits} with(?:out)? time zone`,
    `interval(?: ${field}(?: to ${field})?)?${digits}`,
    `(?:${name}\\.)?${name}${modifiers}`,
  ].join('|')})(?:\\[\\])*$`,
);
/** Not types but shorthands that would add a sequence and a default. */
const serial = /^(?:(?:small|big)?serial|serial[248])(?![a-z0-9_$])/;

/**
 * The column's type, without its domains, checked against the grammar of what format_type prints: a possibly qualified and quoted name
 * with modifiers, or one of the SQL standard's spellings of several words, and array brackets.
 *
 * @throws TidemarkError TM405 naming table and column.
 */
export function typeText(table: TableId, column: ColumnShape): string {
  const type = column.base ?? column.type;
  if (!typeName.test(type) || serial.test(type)) {
    throw new TidemarkError(
      'TM405',
      `${table.schema}.${table.name}: the type of column ${JSON.stringify(column.name)} is not a type name`,
      {
        remedy:
          'Look at the table’s subject in the Schema Registry: its column types are not what Tidemark wrote.',
      },
    );
  }
  return type;
}

/** Schema of a qualified type name, unquoted; null for the types of pg_catalog. */
export function typeSchema(type: string): string | null {
  const match = new RegExp(`^(${name})\\.`).exec(type);
  if (!match) return null;
  const text = match[1]!;
  return text.startsWith('"') ? text.slice(1, -1).replaceAll('""', '"') : text;
}

/** The same type with its schema in quotes: whether a name needs them depends on the server's version. */
export function canonicalType(type: string): string {
  const match = new RegExp(`^(${name})\\.`).exec(type);
  return match ? `${quoteName(typeSchema(type)!)}${type.slice(match[1]!.length)}` : type;
}

const canonicalTypes = new Set([
  'uuid',
  'smallint',
  'integer',
  'bigint',
  'text',
  'boolean',
  'date',
  'bytea',
  'oid',
  'name',
  'macaddr',
  'character varying',
  'timestamp without time zone',
  'timestamp with time zone',
]);

/**
 * True where two values are equal exactly if their texts are. Not so for numeric (1.0 = 1.00), interval, floats
 * (0 = -0), char(n) or citext: a Window may then delete one text of a key and upsert another of the same value.
 */
export function hasCanonicalText(column: ColumnShape): boolean {
  const type = column.base ?? column.type;
  if (column.enum) return !type.endsWith(']');
  return canonicalTypes.has(type.replace(/\([0-9]+\)/, ''));
}
