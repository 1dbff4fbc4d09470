/** Which topics a destination reads, and the Units they belong to. */

import type { SinkKind } from '../connector/sink.ts';
import { parseTablePattern } from '../platform/table-name.ts';
import { splitTopic, topicNames } from '../publish/record-format.ts';

/**
 * Topics of the subscribed tables, sorted, those for this destination alone among them. Patterns are compared as topics, so characters that Kafka does not allow
 * count as `_` on both sides.
 * @param patterns `schema.table` or `schema.*`
 */
export function matchTopics(
  prefix: string,
  patterns: readonly string[],
  topics: Iterable<string>,
  destination: string | null = null,
): string[] {
  const names = topicNames(prefix);
  const exact = new Set<string>();
  const heads: string[] = [];
  for (const pattern of patterns) {
    const wanted = parseTablePattern(pattern);
    if (!wanted) continue;
    const { schema, name } = wanted;
    if (name === null) heads.push(names.table({ schema, name: '' }));
    else exact.add(names.table({ schema, name }));
  }
  const own = new Set([names.progress, names.parked, names.quarantine]);
  const all = new Set(topics);
  return [...all]
    .filter((topic) => {
      if (own.has(topic)) return false;
      const { table, destination: only } = splitTopic(topic, all);
      if (only !== null && only !== destination) return false;
      return exact.has(table) || heads.some((head) => table.startsWith(head));
    })
    .sort();
}

/**
 * Unit to its topics. A table's Unit is named by the topic without the prefix: `schema.table`, with `_` where Kafka
 * has it; the exact names are in the shapes that the sink is given.
 */
export function unitsOf(
  kind: SinkKind['unit'],
  prefix: string,
  topics: readonly string[],
): Map<string, string[]> {
  if (topics.length === 0) return new Map();
  if (kind === 'destination') return new Map([['*', [...topics]]]);
  const all = new Set(topics);
  const units = new Map<string, string[]>();
  for (const topic of topics) {
    const unit = splitTopic(topic, all).table.slice(prefix.length + 1);
    units.set(unit, [...(units.get(unit) ?? []), topic]);
  }
  return units;
}
