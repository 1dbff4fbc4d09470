/** How a table is named in text: in messages, commands and configuration, without a name ever meaning two tables. */

export interface TableId {
  schema: string;
  name: string;
}

/**
 * `schema.name`, the way messages, commands and configuration name a table. A part with a dot, a quote, a star, a comma
 * or a space in it is in double quotes, as in SQL; upper case needs none.
 */
export function tableName({ schema, name }: TableId): string {
  return `${tableNamePart(schema)}.${tableNamePart(name)}`;
}

/** Text of one part as tableName writes it, quotes allowed where none are needed. */
const partForm = String.raw`(?:"(?:[^"]|"")+"|[^.*,"\s]+)`;
export const tableNameForm = new RegExp(`^(${partForm})\\.(${partForm})$`);
/** The same, or `schema.*`. */
export const tablePatternForm = new RegExp(`^(${partForm})\\.(${partForm}|\\*)$`);

/** @returns null where the text is no name of a table */
export function parseTableName(text: string): TableId | null {
  const parts = tableNameForm.exec(text.trim());
  return parts && { schema: unquoted(parts[1]!), name: unquoted(parts[2]!) };
}

/** @returns name null for all tables of the schema; null where the text is no pattern */
export function parseTablePattern(text: string): { schema: string; name: string | null } | null {
  const parts = tablePatternForm.exec(text.trim());
  return parts && { schema: unquoted(parts[1]!), name: parts[2] === '*' ? null : unquoted(parts[2]!) };
}

function tableNamePart(text: string): string {
  return /^[^.*,"\s]+$/.test(text) ? text : `"${text.replaceAll('"', '""')}"`;
}

function unquoted(part: string): string {
  return part.startsWith('"') ? part.slice(1, -1).replaceAll('""', '"') : part;
}
