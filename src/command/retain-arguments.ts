/** What the commands of retention are told, checked: keys, tables, ends, reasons, names. */
import { readFile } from 'node:fs/promises';
import { parseDuration } from '../platform/configuration/scalars.ts';
import { describeCause, TidemarkError } from '../platform/errors.ts';
import { parseTableName, type TableId } from '../platform/table-name.ts';
import type { EvidenceArguments } from './evidence.ts';

export interface RetainArguments extends EvidenceArguments {
  /** Of run: until nothing is left that may go now. */
  once?: boolean | undefined;
  /** With `once`: give up waiting for destinations after; `120s`. */
  timeout?: string | undefined;
  reason?: string | undefined;
  destination?: string | undefined;
  all?: boolean | undefined;
  tenant?: string | undefined;
  /** A row's key; and a file with one on each line. */
  key?: string[] | undefined;
  keys?: string | undefined;
  /** The person on whose word. */
  by?: string | undefined;
  until?: string | undefined;
  /** The table's name once more. */
  confirm?: string | undefined;
  where?: string | undefined;
  list?: boolean | undefined;
  limit?: string | undefined;
}

/** @throws TidemarkError TM101 */
export function tableOf(text: string): TableId {
  const table = parseTableName(text);
  if (table) return table;
  throw new TidemarkError('TM101', `${text} is no name of a table`, { remedy: 'Write schema.table.' });
}

/** As row_key of Tombstones has it, however it was written. @throws TidemarkError TM101 */
export function keyText(argument: string): string {
  try {
    const cells: unknown = JSON.parse(argument);
    if (Array.isArray(cells) && cells.length > 0 && cells.every(isKeyCell))
      return JSON.stringify(cells.map(String));
  } catch {
    // Said below.
  }
  throw new TidemarkError('TM101', 'a key is a JSON array of texts, as row_key of the Tombstone has it', {
    remedy: `--key '["4f1c…","17"]': the texts of the key's columns, in the order of the table's columns.`,
  });
}

/** A number that is not written as text may have lost its last digits when it was read. */
function isKeyCell(cell: unknown): boolean {
  return typeof cell === 'string' || typeof cell === 'boolean' || Number.isSafeInteger(cell);
}

/** Each once. @returns null where none is given @throws TidemarkError TM101 */
export async function keysOf(
  { key, keys }: RetainArguments,
  positional: readonly string[] = [],
): Promise<string[] | null> {
  if (!key && keys === undefined && positional.length === 0) return null;
  const lines = keys === undefined ? [] : (await linesOf(keys)).filter((line) => line.trim() !== '');
  const found = new Set([...positional, ...(key ?? []), ...lines].map(keyText));
  if (found.size > 0) return [...found];
  throw new TidemarkError('TM101', `${keys} has no key`, { remedy: 'One key on each line.' });
}

async function linesOf(file: string): Promise<string[]> {
  try {
    return (await readFile(file, 'utf8')).split('\n');
  } catch (error) {
    throw new TidemarkError('TM101', `${file} cannot be read: ${describeCause(error)}`, {
      remedy: '--keys names a file with one key on each line.',
    });
  }
}

/** Not 2027-02-30, which Date takes for the second of March. */
export function isDay(text: string): boolean {
  const time = Date.parse(`${text.slice(0, 10)}T00:00:00Z`);
  return !Number.isNaN(time) && new Date(time).toISOString().startsWith(text.slice(0, 10));
}

/** `48h`, `7d`, or a date or time with its zone. @throws TidemarkError TM101 */
export function untilOf(text: string): Date {
  const duration = parseDuration(text);
  if (duration !== null) return new Date(Date.now() + duration);
  const time =
    /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d))?$/.test(text) && isDay(text)
      ? Date.parse(text)
      : Number.NaN;
  if (Number.isNaN(time))
    throw new TidemarkError('TM101', `--until ${text} is no end`, {
      remedy:
        'A duration such as 48h or 7d; or 2027-01-31 or 2027-01-31T18:00Z (a date begins at midnight UTC).',
    });
  if (time > Date.now()) return new Date(time);
  throw new TidemarkError('TM101', `--until ${text} is over already`, {
    remedy: 'Give an end that is to come.',
  });
}

/** @throws TidemarkError TM101 where one is missing or blank */
export function requireTexts<K extends 'reason' | 'by' | 'confirm' | 'until' | 'tenant'>(
  args: RetainArguments,
  command: string,
  ...names: K[]
): Record<K, string> {
  const missing = names.filter((name) => (args[name] ?? '').trim() === '');
  if (missing.length === 0)
    return Object.fromEntries(names.map((name) => [name, args[name]!.trim()])) as Record<K, string>;
  throw new TidemarkError('TM101', `${command} needs ${missing.map((name) => `--${name}`).join(', ')}`, {
    remedy: 'tidemark --help',
  });
}
