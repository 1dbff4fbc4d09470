/** What a table's result means and what to do about it, in words. */
import type { TableShape } from '../connector/shape.ts';
import { tableName } from '../connector/shape.ts';
import type { SourceConfig } from '../platform/resolved-config.ts';
import { type CatalogueTable, columnPolicy, hasIdentity } from '../replicate/catalogue.ts';
import type { TableReport } from './report.ts';

/** Columns that cannot be compared, because only one side has them. */
export interface UncomparedColumns {
  /** In the contract, but dropped or renamed at the source, without a Change since. */
  gone: string[];
  /** At the source, but in no Change so far. */
  added: string[];
}

export function uncomparedColumns(
  source: SourceConfig,
  table: CatalogueTable,
  shape: TableShape,
): UncomparedColumns {
  const known = new Set(shape.columns.map(({ name }) => name));
  const present = new Set(table.columns.map(({ name }) => name));
  const gone = new Set([...known].filter((name) => !present.has(name)));
  const tenant = shape.tenantColumn === null ? null : shape.columns[shape.tenantColumn]!.name;
  if (tenant !== null && gone.has(tenant)) {
    // Without the tenant that salted them, hashes cannot be made again.
    for (const { name, protection } of shape.columns) if (protection?.policy === 'hash') gone.add(name);
  }
  return {
    gone: [...gone],
    added: table.columns
      .filter((column) => !known.has(column.name) && !column.generated)
      .filter((column) => columnPolicy(source, table, column) !== 'drop')
      .map(({ name }) => name),
  };
}

/** @returns null where there is nothing to say */
export function hintFor(
  table: CatalogueTable,
  report: Pick<
    TableReport,
    'status' | 'missing' | 'extra' | 'different' | 'countsExact' | 'quarantined' | 'evicted'
  >,
  { gone, added }: UncomparedColumns,
  carried: readonly string[] = [],
): string | null {
  const name = tableName(table);
  const parts: string[] = [];
  if (report.quarantined > 0) {
    parts.push(
      `${report.quarantined} of its rows are in Quarantine, since the destination refused them: \`tidemark quarantine list\` says why.`,
    );
  }
  if (report.evicted > 0) {
    parts.push(
      `${report.evicted} rows that the source let go of are kept beside these; they are counted, not compared.`,
    );
  }
  if (report.status === 'different') {
    const { missing, extra, different } = report;
    const explained = report.quarantined >= missing + extra + different && report.countsExact;
    if (explained) {
      // Nothing more is known to be wrong.
    } else if (!hasIdentity(table)) {
      parts.push(
        `${name} has no replica identity, so only its inserts and truncates are published: rows updated or deleted at the source stay as they were at the destination. Give it a primary key, or: alter table ${name} replica identity full; then rebuild the destination's table.`,
      );
    } else if (carried.length > 0) {
      parts.push(
        `Carried as text since their type changed: ${carried.join(', ')}. Rows from before were cast as far as the destination can, and where the source's values came about in another way they differ: \`tidemark snapshot start ${name}\` brings them.`,
      );
    } else if (missing > 0 && extra === 0 && different === 0) {
      parts.push(
        table.kind === 'partitioned'
          ? `Only rows are missing: an attached partition may have brought them, or they are from before the slot was made; the stream alone carries neither. tidemark snapshot start ${name} brings them.`
          : 'Only rows are missing: they may be from before the slot was made, which the stream alone does not carry, or were deleted at the destination by hand.',
      );
    } else if (extra > 0 && missing === 0 && different === 0) {
      parts.push(
        table.kind === 'partitioned'
          ? 'Only the destination has rows too many: a partition was detached, dropped or truncated by itself, which Postgres does not replicate, so that its rows stay; delete them there where they are not wanted. Or somebody else writes to it.'
          : 'Only the destination has rows too many: somebody else may write to it.',
      );
    } else {
      parts.push(
        'If nobody writes to the destination by hand, rebuild its table and report this: delivery is meant to make it equal.',
      );
    }
    if (!report.countsExact) parts.push('More rows differ than were examined; the counts are lower bounds.');
  }
  if (gone.length > 0) {
    parts.push(
      `Not compared: ${gone.join(', ')}, dropped or renamed at the source without a Change of the table since.`,
    );
  }
  if (added.length > 0) {
    parts.push(`Not compared: ${added.join(', ')}, new at the source and in no Change so far.`);
  }
  return parts.length === 0 ? null : parts.join(' ');
}
