/** Which column of a table fills which attribute of a finding. */
import type { TableShape } from '../../../src/connector/shape.ts';
import { type AttributeKind, kindOf, type Labels } from './finding-values.ts';

/** `ocsf.path=column`, from the options. */
export interface ColumnMapping {
  path: readonly string[];
  column: string;
}

export interface FindingOptions {
  columns: readonly ColumnMapping[];
  /** The operator named the columns; else they are the defaults, of which a table need not have all. */
  named: boolean;
  severities: Labels;
  statuses: Labels;
  /** Null: the source's id. */
  product: string | null;
  vendor: string | null;
}

export interface MappedColumn {
  index: number;
  path: readonly string[];
  kind: AttributeKind;
}

export interface ShapeMapping {
  mapped: readonly MappedColumn[];
  /** Indexes of the others. */
  unmapped: readonly number[];
  /** Columns that the options name and the table lacks. */
  missing: readonly string[];
}

export function mappingFor({ columns: mappings }: FindingOptions, { columns }: TableShape): ShapeMapping {
  const mapped: MappedColumn[] = [];
  const missing: string[] = [];
  for (const { path, column } of mappings) {
    const index = columns.findIndex(({ name }) => name === column);
    if (index < 0) missing.push(column);
    else mapped.push({ index, path, kind: kindOf(path) });
  }
  const taken = new Set(mapped.map(({ index }) => index));
  return { mapped, unmapped: [...columns.keys()].filter((index) => !taken.has(index)), missing };
}

/** Attributes that say what kind of event this is, and those that Tidemark fills. */
const reserved =
  /^(?:activity_id|activity_name|category_uid|category_name|class_uid|class_name|type_uid|type_name|severity|status|is_alert|unmapped(?:\..*)?|metadata|metadata\.(?:version|uid|log_name|product(?:\..*)?)|finding_info)$/;

/** The mapping, or why it cannot be one. */
export function parseMapping(text: string): ColumnMapping | string {
  const match = /^([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*)=(.+)$/.exec(text);
  if (!match) return 'must be like finding_info.title=title: an OCSF attribute, = and a column';
  const [, attribute, column] = match;
  if (reserved.test(attribute!)) return `${attribute} is filled by Tidemark`;
  return { path: attribute!.split('.'), column: column! };
}

/** The first two mappings that would write to one attribute, or one into the other; null where none do. */
export function overlap(mappings: readonly ColumnMapping[]): string | null {
  const paths = mappings.map(({ path }) => path.join('.')).sort();
  for (const [index, path] of paths.entries()) {
    const other = paths.find((each, at) => at !== index && (each === path || each.startsWith(`${path}.`)));
    if (other !== undefined) return other;
  }
  return null;
}
