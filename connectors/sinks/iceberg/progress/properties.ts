/** What a table says of itself in its properties: whose it is, and which Window it holds. */
import type { Position } from '../../../../src/connector/position.ts';
import type { AppendWindow, Receipt } from '../../../../src/connector/sink.ts';
import { unsupported } from '../failures.ts';

export const propertyNames = {
  format: 'tidemark.format',
  source: 'tidemark.source',
  destination: 'tidemark.destination',
  position: 'tidemark.position',
  sequence: 'tidemark.sequence',
  token: 'tidemark.token',
  commitTime: 'tidemark.commit-time-us',
  attempt: 'tidemark.attempt',
  layout: 'tidemark.layout',
  /** The same of a table that keeps every Change. */
  changes: 'tidemark.changes',
  /** `true` from the first row on that the source let go of. */
  retired: 'tidemark.retired',
  receipt: 'tidemark.receipt',
} as const;

/** What a Window of either mode says of itself. */
export type WindowHead = Omit<AppendWindow, 'tables'>;

/** Of the properties' layout; a later one is refused. */
const format = 1;

export interface Owner {
  sourceId: string;
  destination: string;
}

export interface Mark {
  position: Position;
  sequence: number;
  token: bigint;
  attempt: string | null;
  receipt: Receipt | null;
}

type Properties = Readonly<Record<string, string>>;

/** Null of a table that no Window was merged into. @throws TidemarkError TM405 where the table is another destination's */
export function readMark(properties: Properties, owner: Owner, what: string): Mark | null {
  const { source, destination, format: version } = propertyNames;
  if (properties[source] === undefined) return null;
  if (Number(properties[version]) > format) {
    throw unsupported(
      `${what}: its properties have format ${properties[version]}; this version knows ${format}`,
      'A newer Tidemark wrote this destination: run that version.',
    );
  }
  if (properties[source] !== owner.sourceId || properties[destination] !== owner.destination) {
    throw unsupported(
      `${what} is written by another destination`,
      'Give each destination a namespace of its own (iceberg.namespace).',
    );
  }
  if (properties[propertyNames.sequence] === undefined) return null;
  const receipt = properties[propertyNames.receipt];
  return {
    position: properties[propertyNames.position] as Position,
    sequence: Number(properties[propertyNames.sequence]),
    token: BigInt(properties[propertyNames.token] ?? 0),
    attempt: properties[propertyNames.attempt] ?? null,
    receipt: receipt === undefined ? null : (JSON.parse(receipt) as Receipt),
  };
}

/** Of tables that are made here: the catalog removes files with metadata of the past, beyond the last hundred. */
export const creationProperties = { 'write.metadata.delete-after-commit.enabled': 'true' } as const;

export function ownerProperties({ sourceId, destination }: Owner): Record<string, string> {
  return {
    [propertyNames.format]: String(format),
    [propertyNames.source]: sourceId,
    [propertyNames.destination]: destination,
  };
}

export function markProperties(window: WindowHead, attempt: string): Record<string, string> {
  return {
    ...ownerProperties(window),
    [propertyNames.position]: window.to,
    [propertyNames.sequence]: String(window.sequence),
    [propertyNames.token]: String(window.fencingToken),
    [propertyNames.commitTime]: String(window.commitTimeUs),
    [propertyNames.attempt]: attempt,
  };
}
