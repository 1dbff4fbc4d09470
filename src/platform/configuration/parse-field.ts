/** One value of the configuration by its field: what is accepted, and how to say so. */
import { resolve as resolvePath } from 'node:path';
import type { Node } from './document.ts';
import type { Field } from './field.ts';
import { nearestSpelling } from './problems.ts';
import { formatBytes, formatDuration, parseBytes, parseDuration, parseInteger } from './scalars.ts';

/** The value, or null after `wrong` (with what is allowed) or `broken` (already reported). */
export function parseField(
  field: Field,
  node: Node,
  directory: string,
  wrong: (text: string, line?: number) => null,
  broken: () => void,
): unknown {
  if (field.type === 'list') return parseList(field, node, wrong, broken);
  if (node.kind !== 'scalar') return wrong(`must be ${expectation(field)}, not a ${node.kind}`);
  if (node.broken) {
    broken();
    return null;
  }
  const text = node.text ?? '';
  const trimmed = text.trim();
  const misfit = (): null => wrong(`must be ${expectation(field)}`);
  const within = (value: number | null): number | null => {
    const fits =
      value !== null && value >= (field.min ?? 0) && value <= (field.max ?? Number.MAX_SAFE_INTEGER);
    return fits ? value : misfit();
  };
  if (field.oneOf) {
    const choice = field.oneOf.find((name) => name === trimmed);
    if (choice !== undefined) return choice;
    const nearest = nearestSpelling(trimmed, field.oneOf);
    return wrong(`must be ${expectation(field)}${nearest === null ? '' : `; did you mean ${nearest}?`}`);
  }
  switch (field.type) {
    case 'integer':
      return within(parseInteger(trimmed));
    case 'duration':
      return within(parseDuration(trimmed));
    case 'cadence':
      return trimmed === 'continuous' ? 0 : within(parseDuration(trimmed));
    case 'bytes':
      return within(parseBytes(trimmed));
    case 'boolean':
      return trimmed === 'true' || trimmed === 'false' ? trimmed === 'true' : misfit();
    case 'path':
      return trimmed.includes('\0') || trimmed === '' ? misfit() : resolvePath(directory, trimmed);
    case 'secret':
      // Spaces may belong to a password.
      return field.form && !field.form.pattern.test(text) ? misfit() : text;
    default:
      // A control character in a name ends up in a log line or a statement.
      if (trimmed === '' || /\p{Cc}/u.test(trimmed)) return misfit();
      return field.form && !field.form.pattern.test(trimmed) ? misfit() : trimmed;
  }
}

function parseList(
  field: Field,
  node: Node,
  wrong: (text: string, line?: number) => null,
  broken: () => void,
): string[] | null {
  const items: string[] = [];
  if (node.kind === 'map') return wrong(`must be ${expectation(field)}, not a map`);
  const scalars = node.kind === 'list' ? node.items : [node];
  for (const item of scalars) {
    if (item.kind !== 'scalar')
      return wrong(`must be ${expectation(field)}; an item is a ${item.kind}`, item.line);
    if (item.broken) {
      broken();
      return null;
    }
    const texts = node.kind === 'list' ? [item.text ?? ''] : splitList(item.text ?? '');
    for (const text of texts.map((part) => part.trim())) {
      const fits = text !== '' && !/\p{Cc}/u.test(text) && (!field.form || field.form.pattern.test(text));
      if (!fits) return wrong(`must be ${expectation(field)}; item ${items.length + 1} is not`, item.line);
      items.push(text);
    }
  }
  if (new Set(items).size < items.length) return wrong('names the same item twice');
  const mayBeEmpty = field.default !== undefined;
  return items.length === 0 && !mayBeEmpty ? wrong(`must be ${expectation(field)}, at least one`) : items;
}

/** At the commas, but for those in double quotes. */
export function splitList(text: string): string[] {
  const items = [''];
  let quoted = false;
  for (const character of text) {
    if (character === '"') quoted = !quoted;
    if (character === ',' && !quoted) items.push('');
    else items[items.length - 1] += character;
  }
  return items;
}

/** What a field accepts, for messages and the reference page. */
export function expectation(field: Field): string {
  if (field.oneOf) return `one of ${field.oneOf.join(', ')}`;
  const range = rangeOf(field);
  switch (field.type) {
    case 'integer':
      return `a whole number${range}`;
    case 'duration':
      return `a duration such as 500ms, 2s, 15m, 1h or 7d${range}`;
    case 'cadence':
      return `continuous, or a duration such as 30s, 15m or 1h${range}`;
    case 'bytes':
      return `a size such as 64MiB (B, KiB, MiB, GiB, TiB; a bare number is bytes)${range}`;
    case 'boolean':
      return 'true or false';
    case 'path':
      return 'a path';
    case 'list':
      return `a list or comma-separated text${field.form ? `, each ${field.form.says}` : ''}`;
    case 'tables':
      return 'a list of `schema.table`, `schema.*` or mappings with a pattern';
    default:
      return field.form ? field.form.says : 'text';
  }
}

/** ` from 1 to 65535`, ` of at least 1m`, ` up to 30d`, or nothing. */
export function rangeOf({ type, min, max }: Field): string {
  const show = type === 'bytes' ? formatBytes : type === 'integer' ? String : formatDuration;
  const low = min === undefined || (min === 0 && type !== 'integer') ? null : show(min);
  const high = max === undefined ? null : show(max);
  if (low !== null && high !== null) return ` from ${low} to ${high}`;
  if (low !== null) return ` of at least ${low}`;
  return high === null ? '' : ` up to ${high}`;
}
