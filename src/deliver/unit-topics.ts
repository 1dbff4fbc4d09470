/** Which topics a destination reads, and the Units they belong to. */

import type { SinkKind } from '../connector/sink.ts';
import { parseTablePattern } from '../platform/table-name.ts';
import { topicNames } from '../publish/record-format.ts';

/**
 * Topics of the subscribed tables, sorted. Patterns are compared as topics, so characters that Kafka does not allow
 * count as `_` on both sides.
 * @param patterns `schema.table` or `schema.*`
 */
export function matchTopics(prefix: string, patterns: readonly string[], topics: Iterable<string>): string[] {
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
  const own = new Set([names.progress, names.parked]);
  return [...topics]
    .filter((topic) => !own.has(topic))
    .filter((topic) => exact.has(topic) || heads.some((head) => topic.startsWith(head)))
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
  return new Map(topics.map((topic) => [topic.slice(prefix.length + 1), [topic]]));
}
