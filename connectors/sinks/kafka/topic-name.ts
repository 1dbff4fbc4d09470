/** From a table to its topic. */
import { createHash } from 'node:crypto';
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { TableId } from '../../../src/connector/shape.ts';

/** Pieces of text and the names between them. */
export type TopicTemplate = readonly ({ text: string } | { name: 'schema' | 'table' })[];

/** In the template. */
export const placeOf = { schema: '$' + '{schema}', table: '$' + '{table}' } as const;

/** Kafka takes names of up to 249 of these characters. */
const longest = 249;
const notAllowed = /[^A-Za-z0-9._-]/gu;

/** @throws TidemarkError TM101 */
export function parseTemplate(source: string): TopicTemplate {
  const parts: ({ text: string } | { name: 'schema' | 'table' })[] = [];
  for (const [piece] of source.matchAll(/\$\{[^}]*\}?|[^$]+|\$/g)) {
    if (piece === placeOf.schema || piece === placeOf.table) {
      parts.push({ name: piece === placeOf.schema ? 'schema' : 'table' });
      continue;
    }
    if (!/^[A-Za-z0-9._-]+$/.test(piece)) {
      throw new TidemarkError(
        'TM101',
        `topic.name: beside ${placeOf.schema} and ${placeOf.table} only letters, digits and . _ - may stand`,
      );
    }
    parts.push({ text: piece });
  }
  if (!parts.some((part) => 'name' in part && part.name === 'table')) {
    throw new TidemarkError(
      'TM101',
      `topic.name: ${placeOf.table} is missing, so all tables would share one topic`,
    );
  }
  return parts;
}

/**
 * Names of letters, digits, `_` and `-` stay as they are. Any other character becomes `_`, and a hash of the table's own
 * name stands behind, so that names that only differ there stay apart; so does a hash where the name is too long.
 */
export function topicOf(template: TopicTemplate, { schema, name }: TableId): string {
  const own = { schema, table: name };
  const plain = template.map((part) => ('text' in part ? part.text : own[part.name])).join('');
  const clean = plain.replace(notAllowed, '_');
  const ambiguous = [schema, name].some((each) => /[^A-Za-z0-9_-]/u.test(each));
  if (!ambiguous && clean.length <= longest) return clean;
  const hash = createHash('sha256')
    .update(JSON.stringify([schema, name]))
    .digest('hex')
    .slice(0, 8);
  return `${clean.slice(0, longest - 9)}-${hash}`;
}

/** A name within a topic or a transactional id. */
export function safeName(name: string): string {
  return name.replace(notAllowed, '_');
}
