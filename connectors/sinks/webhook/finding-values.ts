/** Postgres' texts as values of OCSF attributes. What an attribute cannot hold exactly is said to be inexact. */

export interface AttributeValue {
  value: string | number | boolean;
  /** False: the column's own text has to stand under `unmapped` as well. */
  exact: boolean;
}

export type AttributeKind = 'severity' | 'status' | 'time' | 'integer' | 'boolean' | 'text';

/** OCSF names tell the type: `…_time` is milliseconds, `…_id`, `…_score` and `…_count` are whole numbers. */
export function kindOf(path: readonly string[]): AttributeKind {
  const name = path.at(-1)!;
  if (path.length === 1 && name === 'severity_id') return 'severity';
  if (path.length === 1 && name === 'status_id') return 'status';
  if (name === 'time' || name.endsWith('_time')) return 'time';
  if (/(?:^|_)(?:id|score|count)$/.test(name)) return 'integer';
  return name.startsWith('is_') ? 'boolean' : 'text';
}

/** Null where the attribute has no value for the text at all. */
export function attributeValue(kind: AttributeKind, text: string): AttributeValue | null {
  switch (kind) {
    case 'time':
      return milliseconds(text);
    case 'integer':
      return wholeNumber(text);
    case 'boolean':
      return text === 't' || text === 'f' ? { value: text === 't', exact: true } : null;
    default:
      return { value: text, exact: true };
  }
}

const instant = /^(\d{4,6})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(?:\+00)?)?$/;

/** Dates and timestamps, in UTC; not infinity, and nothing before the year 1. */
function milliseconds(text: string): AttributeValue | null {
  const match = instant.exec(text);
  if (!match) return null;
  const [year, month, day, hour = 0, minute = 0, second = 0] = match
    .slice(1, 7)
    .map((part) => Number(part ?? 0));
  const fraction = (match[7] ?? '').padEnd(6, '0');
  const date = new Date(0);
  // Date.UTC takes the years 0 to 99 for 1900 to 1999.
  date.setUTCFullYear(year!, month! - 1, day!);
  date.setUTCHours(hour, minute, second, Number(fraction.slice(0, 3)));
  const value = date.getTime();
  return Number.isNaN(value) ? null : { value, exact: fraction.endsWith('000') };
}

function wholeNumber(text: string): AttributeValue | null {
  if (!/^-?\d+(?:\.\d+)?$/.test(text)) return null;
  const value = Math.round(Number(text));
  if (!Number.isSafeInteger(value)) return null;
  return { value, exact: String(value) === text };
}

export interface Label {
  id: number;
  caption: string;
}

const severityCaptions = ['Unknown', 'Informational', 'Low', 'Medium', 'High', 'Critical', 'Fatal'];
const statusCaptions = ['Unknown', 'New', 'In Progress', 'Suppressed', 'Resolved', 'Archived', 'Deleted'];

export const unknownSeverity: Label = { id: 0, caption: 'Unknown' };
export const archived: Label = { id: 5, caption: 'Archived' };
export const deleted: Label = { id: 6, caption: 'Deleted' };
export const resolvedStatusId = 4;

/** The product's own words, lower case, with the identifiers that OCSF 1.8 gives them. */
export type Labels = ReadonlyMap<string, number>;

export function severityOf(labels: Labels, text: string): Label {
  return labelOf(labels, severityCaptions, text);
}

export function statusOf(labels: Labels, text: string): Label {
  return labelOf(labels, statusCaptions, text);
}

/** A word that nobody mapped is 99 (Other), and then its caption is the word itself. */
function labelOf(labels: Labels, captions: readonly string[], text: string): Label {
  const id = labels.get(text.toLowerCase()) ?? 99;
  return { id, caption: captions[id] ?? text };
}
