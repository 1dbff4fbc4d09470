/**
 * The `finding` shape: a row as an OCSF 1.8 Detection Finding (class 2004). Changes of a whole table are no findings and
 * go as Base Events (class 0), whose `unmapped` says what happened.
 */
import { type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { Cell, RowEvent } from '../../../src/connector/sink.ts';
import { concernsWholeTable, type EncodeEvent, emptyRecord, eventId } from './event.ts';
import { type FindingOptions, mappingFor, type ShapeMapping } from './finding-mapping.ts';
import {
  archived,
  attributeValue,
  deleted,
  type Label,
  resolvedStatusId,
  severityOf,
  statusOf,
  unknownSeverity,
} from './finding-values.ts';
import { partsOf } from './raw-event.ts';

export const ocsfVersion = '1.8.0';

const activities = { create: 1, update: 2, close: 3 } as const;
const activityNames = ['Unknown', 'Create', 'Update', 'Close'];
/** finding_info.analytic must say what it is; a column with a rule's name or number can only mean a rule. */
const ruleAnalytic = { type_id: 1, type: 'Rule' };

interface Attributes {
  [name: string]: Attributes | string | number | boolean | null;
}

export interface FindingContext {
  sourceId: string;
  /** Told once for each shape that lacks columns which the operator named. */
  onMissing(table: string, columns: readonly string[]): void;
}

export function encodeFinding(options: FindingOptions, { sourceId, onMissing }: FindingContext): EncodeEvent {
  let known: { shape: TableShape; mapping: ShapeMapping } | null = null;
  return (event, shape) => {
    if (known?.shape !== shape) {
      known = { shape, mapping: mappingFor(options, shape) };
      const { missing } = known.mapping;
      if (options.named && missing.length > 0) onMissing(tableName(shape), missing);
    }
    const finding = concernsWholeTable(event)
      ? baseEvent(event)
      : detectionFinding(event, shape, known.mapping, options);
    const metadata = finding.metadata as Attributes | undefined;
    return JSON.stringify({
      ...finding,
      metadata: {
        version: ocsfVersion,
        uid: eventId(sourceId, shape, event),
        log_name: tableName(shape),
        product: {
          name: options.product ?? sourceId,
          ...(options.vendor === null ? {} : { vendor_name: options.vendor }),
        },
        ...metadata,
      },
      unmapped: unmappedOf(event, shape, finding.unmapped as Attributes, sourceId),
    });
  };
}

function detectionFinding(
  event: RowEvent,
  shape: TableShape,
  { mapped, unmapped }: ShapeMapping,
  options: FindingOptions,
): Attributes {
  const values = wholeValues(event, shape);
  const attributes: Attributes = {};
  const rest = emptyRecord<Cell>();
  let severity: Label = unknownSeverity;
  let status: Label | null = null;
  for (const index of unmapped) keep(rest, shape, index, values[index]);
  for (const { index, path, kind } of mapped) {
    const text = values[index];
    if (text === undefined) continue;
    if (text === null) keep(rest, shape, index, text);
    else if (kind === 'severity') severity = severityOf(options.severities, text);
    else if (kind === 'status') status = statusOf(options.statuses, text);
    else {
      const attribute = attributeValue(kind, text);
      if (attribute) put(attributes, path, attribute.value);
      if (!attribute?.exact) keep(rest, shape, index, text);
    }
    // The word itself is the product's own, and its caption need not tell it.
    if (text !== null && (kind === 'severity' || kind === 'status')) keep(rest, shape, index, text);
  }
  if (event.op === 'd') status = deleted;
  if (event.op === 'e') status = archived;
  const activity = activityOf(event, status);
  const info = objectAt(attributes, 'finding_info');
  // It must say which finding it is about; without a key that is this one alone.
  info.uid ??= event.key.length > 0 ? event.key.join('/') : event.position;
  if (info.analytic) info.analytic = { ...ruleAnalytic, ...(info.analytic as Attributes) };
  return {
    activity_id: activity,
    activity_name: activityNames[activity]!,
    category_uid: 2,
    category_name: 'Findings',
    class_uid: 2004,
    class_name: 'Detection Finding',
    type_uid: 200_400 + activity,
    type_name: `Detection Finding: ${activityNames[activity]}`,
    // Of what happened now, so that a search by time finds it; the finding's own times are in finding_info.
    time: Number(event.commitTimeUs / 1000n),
    severity_id: severity.id,
    severity: severity.caption,
    ...(status ? { status_id: status.id, status: status.caption } : {}),
    is_alert: event.op === 'c',
    ...attributes,
    unmapped: rest,
  };
}

function activityOf({ op }: RowEvent, status: Label | null): number {
  if (op === 'd') return activities.close;
  if (op === 'c' || op === 'r') return activities.create;
  return op === 'u' && status?.id === resolvedStatusId ? activities.close : activities.update;
}

function baseEvent(event: RowEvent): Attributes {
  const activity = event.op === 't' ? 'Truncate' : 'Snapshot End';
  return {
    activity_id: 99,
    activity_name: activity,
    category_uid: 0,
    category_name: 'Uncategorized',
    class_uid: 0,
    class_name: 'Base Event',
    type_uid: 99,
    type_name: 'Base Event: Other',
    time: Number(event.commitTimeUs / 1000n),
    severity_id: 1,
    severity: 'Informational',
    unmapped: {},
  };
}

/** What OCSF has no place for: the Change, and under `row` the columns that no attribute holds exactly. */
function unmappedOf(event: RowEvent, shape: TableShape, row: Attributes, sourceId: string) {
  const { key, unchanged, previousKey, before } = partsOf(event, shape);
  return {
    op: event.op,
    source: sourceId,
    schema: shape.schema,
    table: shape.name,
    position: event.position,
    key,
    row,
    ...(unchanged.length > 0 ? { unchanged } : {}),
    ...(previousKey ? { previous_key: previousKey } : {}),
    ...(before ? { before } : {}),
    ...(event.since === undefined ? {} : { since: event.since }),
  };
}

/** The row with its key in place: an eviction has nothing else. */
function wholeValues({ values, key }: RowEvent, { keyColumns }: TableShape): (Cell | undefined)[] {
  const whole = values.slice();
  for (const [part, index] of keyColumns.entries()) if (part < key.length) whole[index] = key[part];
  return whole;
}

function keep(
  row: Record<string, Cell>,
  { columns }: TableShape,
  index: number,
  value: Cell | undefined,
): void {
  if (value !== undefined) row[columns[index]!.name] = value;
}

/** Paths never overlap, which the options make sure of. */
function put(attributes: Attributes, path: readonly string[], value: string | number | boolean): void {
  let at = attributes;
  for (const name of path.slice(0, -1)) at = objectAt(at, name);
  at[path.at(-1)!] = value;
}

function objectAt(attributes: Attributes, name: string): Attributes {
  attributes[name] ??= {};
  return attributes[name] as Attributes;
}
