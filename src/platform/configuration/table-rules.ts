/** source.tables: a list of patterns and of mappings {pattern, tenant.column, columns: {name: policy}}. */

import { columnPolicies } from '../column-policy.ts';
import type { ColumnPolicy, IncompatibleChange, TableRule } from '../resolved-config.ts';
import type { MapNode, Node } from './document.ts';
import type { Field } from './field.ts';
import { tablePattern, tableRuleFields } from './fields.ts';
import { splitList } from './parse-field.ts';
import type { Report } from './problems.ts';
import { type FlatEntry, readValues } from './values.ts';

const columnChoice: Field = {
  type: 'string',
  unit: 'choice',
  oneOf: columnPolicies,
  description: 'Whether, and how, the column leaves Postgres.',
};

/** The rules; reports under `source.tables[i]` and leaves out what is wrong. A plain text is a comma-separated list. */
export function parseTableRules(entry: FlatEntry, report: Report): TableRule[] {
  const { key, node } = entry;
  if (node.kind === 'map' || (node.kind === 'scalar' && node.broken)) {
    // A broken reference was reported where it stands.
    if (node.kind === 'map')
      report(key, 'must be a list; a mapping is one item of it (`- pattern: …`)', entry.line);
    return [];
  }
  const items: Node[] =
    node.kind === 'list'
      ? node.items
      : splitList(node.text ?? '').map((text) => ({ ...node, text: text.trim() }));
  const rules = items.flatMap((item, index) => parseRule(item, `${key}[${index}]`, report) ?? []);
  const seen = new Set<string>();
  for (const { pattern } of rules) {
    if (seen.has(pattern)) report(key, 'has two rules for the same pattern', entry.line);
    seen.add(pattern);
  }
  if (items.length === 0) report(key, 'must name at least one table', entry.line);
  return rules;
}

function parseRule(item: Node, key: string, report: Report): TableRule | null {
  if (item.kind === 'map') return parseMapping(item, key, report);
  if (item.kind === 'scalar' && item.broken) return null;
  if (item.kind === 'list' || item.text === null || !tablePattern.pattern.test(item.text.trim())) {
    report(key, `must be ${tablePattern.says}, or a mapping with a pattern`, item.line);
    return null;
  }
  return { pattern: item.text.trim(), tenantColumn: undefined, columns: {} };
}

function parseMapping(map: MapNode, key: string, report: Report): TableRule | null {
  const under: Report = (inner, text, line) =>
    report(inner === null ? key : `${key}.${inner}`, text, line ?? map.line);
  // Column names are the user's own words, and `columns` may be nested or dotted.
  const flat: MapNode = { ...map, entries: [] };
  for (const entry of map.entries) {
    if (entry.key !== 'columns' || entry.node.kind !== 'map') flat.entries.push(entry);
    else
      for (const column of entry.node.entries) flat.entries.push({ ...column, key: `columns.${column.key}` });
  }
  const isColumn = (name: string): Field | null => (/^columns\../.test(name) ? columnChoice : null);
  const { values, failed, dynamic } = readValues(flat, tableRuleFields, {
    directory: '',
    report: under,
    dynamicField: isColumn,
  });
  if (failed.size > 0) return null;
  const columns = [...dynamic].map(([name, policy]) => [
    name.slice('columns.'.length),
    policy as ColumnPolicy,
  ]);
  return {
    pattern: values.pattern,
    // Absent means "as source.tenant.column says"; an explicit null means "no tenant here".
    tenantColumn: values['tenant.column'] ?? (setsTenantNull(map) ? null : undefined),
    ...(values['snapshot.mode'] === null ? {} : { snapshotMode: values['snapshot.mode'] }),
    columns: Object.fromEntries(columns) as Record<string, ColumnPolicy>,
    ...(values['on.incompatible.change'] === 'park'
      ? {}
      : { onIncompatibleChange: values['on.incompatible.change'] as IncompatibleChange }),
  };
}

function setsTenantNull(map: MapNode): boolean {
  return map.entries.some(({ key, node }) => {
    if (key === 'tenant.column') return node.kind === 'scalar' && node.text === null;
    return key === 'tenant' && node.kind === 'map' && node.entries.some((entry) => entry.key === 'column');
  });
}
