/** From a tree to typed values: finds the keys that a table of fields knows, parses each, reports all that is wrong. */
import type { MapNode, Node, ScalarNode } from './document.ts';
import type { Field, FieldTable, Values } from './field.ts';
import { expectation, parseField } from './parse-field.ts';
import { nearestSpelling, type Report } from './problems.ts';

export interface FlatEntry {
  key: string;
  line: number;
  node: Node;
}

/** Looking for a nearest spelling takes a while; a file with more unknown keys than this is not mistyped. */
const mostHints = 50;

/** Keys besides a table's own, such as `cadence.<schema>.<table>`: the field of such a key, or null. */
export type DynamicField = (key: string) => Field | null;

export interface ReadValues<T extends FieldTable> {
  /** A key in `failed` has no usable value; the caller must throw the collected problems instead of using it. */
  values: Values<T>;
  /** Keys that the file itself sets, with their lines. */
  given: Map<string, number>;
  failed: Set<string>;
  /** Values of dynamic keys. */
  dynamic: Map<string, unknown>;
}

/**
 * Flattens nested mappings to dotted keys, as far as `fields` has such keys; unknown and doubled keys are reported.
 * `{a: {b.c: 1}}`, `{a.b: {c: 1}}` and `{a.b.c: 1}` are the same.
 */
export function flattenKeys(
  root: MapNode,
  fields: FieldTable,
  report: Report,
  dynamicField: DynamicField = () => null,
): FlatEntry[] {
  const known = Object.keys(fields);
  const found = new Map<string, FlatEntry>();
  let unknown = 0;
  const walk = (map: MapNode, prefix: string): void => {
    for (const entry of map.entries) {
      const key = prefix + entry.key;
      const isGroup = known.some((name) => name.startsWith(`${key}.`));
      if (Object.hasOwn(fields, key) || dynamicField(key) !== null) {
        const earlier = found.get(key);
        if (earlier) report(key, `is set twice; the first is on line ${earlier.line}`, entry.line);
        else found.set(key, { key, line: entry.line, node: entry.node });
      } else if (isGroup && entry.node.kind === 'map') {
        walk(entry.node, `${key}.`);
      } else if (isGroup && entry.node.kind === 'scalar' && entry.node.text === null) {
        // An empty group (`control:` with all its keys commented out) sets nothing.
      } else if (isGroup) {
        report(
          key,
          `holds a group of keys, not a value; allowed: ${allowedUnder(`${key}.`, known)}`,
          entry.line,
        );
      } else {
        unknown++;
        report(key, unknown > mostHints ? 'unknown key' : unknownKey(key, known), entry.line);
      }
    }
  };
  walk(root, '');
  return [...found.values()];
}

function unknownKey(key: string, known: string[]): string {
  const groups = known.flatMap((name) => [...name.matchAll(/\./g)].map((dot) => name.slice(0, dot.index)));
  const nearest = nearestSpelling(key, new Set([...known, ...groups]));
  let prefix = key;
  do prefix = prefix.slice(0, Math.max(0, prefix.lastIndexOf('.')));
  while (prefix !== '' && !groups.includes(prefix));
  const start = prefix === '' ? '' : `${prefix}.`;
  const hint = nearest === null ? '' : `; did you mean ${nearest}?`;
  return `unknown key${hint} Allowed here: ${allowedUnder(start, known)}`.replace(
    /key Allowed/,
    'key. Allowed',
  );
}

/** The next names under a prefix: `source.id, source.tls.*`. */
function allowedUnder(prefix: string, known: string[]): string {
  const names = known
    .filter((name) => name.startsWith(prefix))
    .map((name) => {
      const [first, ...rest] = name.slice(prefix.length).split('.');
      const group =
        rest.length > 0 && known.filter((other) => other.startsWith(`${prefix}${first}.`)).length > 1;
      return group ? `${prefix}${first}.*` : name;
    });
  return [...new Set(names)].join(', ');
}

export interface ReadContext {
  /** Relative paths start here. */
  directory: string;
  report: Report;
  dynamicField?: DynamicField;
  /** Parses fields of type `tables`; a parameter because table rules are read with readValues themselves. */
  parseTables?: (entry: FlatEntry, report: Report) => unknown;
}

/** Reads every field of the table. Reports what is wrong; never throws. */
export function readValues<T extends FieldTable>(
  root: MapNode,
  fields: T,
  { directory, report, dynamicField = () => null, parseTables }: ReadContext,
): ReadValues<T> {
  const failed = new Set<string>();
  const reporting: Report = (key, text, line) => {
    if (key !== null) failed.add(key);
    report(key, text, line);
  };
  const entries = new Map(
    flattenKeys(root, fields, reporting, dynamicField).map((entry) => [entry.key, entry]),
  );
  const given = new Map<string, number>();
  const values: Record<string, unknown> = {};
  const parse = (field: Field, entry: FlatEntry): unknown => {
    const wrong = (text: string, line?: number): null => {
      reporting(entry.key, text, line ?? entry.line);
      return null;
    };
    if (field.type === 'tables' && parseTables) return parseTables(entry, reporting);
    return parseField(field, entry.node, directory, wrong, () => failed.add(entry.key));
  };
  for (const [key, field] of Object.entries(fields)) {
    const entry = entries.get(key);
    if (entry && !isEmpty(entry.node)) {
      given.set(key, entry.line);
      values[key] = parse(field, entry);
    } else if (field.default === undefined) {
      reporting(key, `is missing: ${expectation(field)}`, entry?.line ?? null);
    } else {
      values[key] = defaultValue(field, directory);
    }
  }
  const dynamic = new Map<string, unknown>();
  for (const [key, entry] of entries) {
    const field = Object.hasOwn(fields, key) ? null : dynamicField(key);
    if (field) dynamic.set(key, parse(field, entry));
  }
  return { values: values as Values<T>, given, failed, dynamic };
}

/** An empty text sets nothing: `password: ${env:PASSWORD}` with an empty variable is no password. */
function isEmpty(node: Node): boolean {
  return node.kind === 'scalar' && !node.broken && (node.text === null || node.text === '');
}

/** The default in its resolved form; number defaults of durations and sizes are milliseconds and bytes already. */
function defaultValue(field: Field, directory: string): unknown {
  const value = field.default;
  if (value === null || value === undefined || typeof value === 'boolean' || typeof value === 'number') {
    return value ?? null;
  }
  const scalar = (text: string): ScalarNode => ({ kind: 'scalar', line: 0, text, broken: false });
  const node: Node =
    typeof value === 'string' ? scalar(value) : { kind: 'list', line: 0, items: value.map(scalar) };
  if (isEmpty(node)) return '';
  const wrong = (): never => {
    throw new Error('a default does not fit its own field');
  };
  return parseField(field, node, directory, wrong, wrong);
}
