/** What the webhook sink's tests share: options, Windows made by hand, and a sink over an endpoint of the test's own. */
import { randomBytes } from 'node:crypto';
import { webhookSink } from '../../connectors/sinks/webhook/index.ts';
import type { RefusedRows, TidemarkError } from '../../src/connector/failure.ts';
import { formatPosition, type Position } from '../../src/connector/position.ts';
import { type TableShape, unitName } from '../../src/connector/shape.ts';
import type {
  AppendWindow,
  Cell,
  OptionValues,
  RowEvent,
  SendSink,
  SinkContext,
} from '../../src/connector/sink.ts';

export const newSecret = (): string => `whsec_${randomBytes(32).toString('base64')}`;

/** The defaults, and what the instance file would add. */
export function optionValues(own: OptionValues): OptionValues {
  const values: OptionValues = {};
  for (const [key, field] of Object.entries(webhookSink.options)) {
    if (field.default !== undefined) values[key] = field.default;
  }
  return { ...values, ...own };
}

export interface Opened {
  sink: SendSink;
  context: SinkContext;
  logs: string[];
}

export async function openSink(
  own: OptionValues,
  failpoint: (name: string) => Promise<void> = async () => {},
): Promise<Opened> {
  const logs: string[] = [];
  const context = contextOf(logs, failpoint);
  return { sink: (await webhookSink.open(context, optionValues(own))) as SendSink, context, logs };
}

export function contextOf(
  logs: string[] = [],
  failpoint: (name: string) => Promise<void> = async () => {},
): SinkContext {
  return {
    sourceId: 'shop',
    destination: 'siem',
    scratchDirectory: '',
    log: (level, message, fields) => logs.push(JSON.stringify({ level, message, ...fields })),
    failpoint,
  };
}

export const items: TableShape = shapeOf('items', ['id', 'note', 'blob']);

/** A table of text columns, the first of which is the key. */
export function shapeOf(name: string, columns: string[], keyed = true): TableShape {
  return {
    schema: 'app',
    name,
    columns: columns.map((column, index) => ({
      name: column,
      type: 'text',
      key: keyed && index === 0,
      nullable: !keyed || index > 0,
    })),
    keyColumns: keyed ? [0] : [],
    tenantColumn: null,
  };
}

export function at(lsn: number, ordinal = 0): Position {
  return formatPosition({ epoch: 1, lsn: BigInt(lsn), ordinal });
}

export const commitTime = (lsn: number): bigint => 1_795_500_000_123_456n + BigInt(lsn) * 1_000_000n;

export function event(op: RowEvent['op'], lsn: number, more: Partial<RowEvent> = {}): RowEvent {
  return {
    op,
    position: at(lsn, 1),
    commitTimeUs: commitTime(lsn),
    key: [],
    values: [],
    previousKey: null,
    before: null,
    ...more,
  };
}

/** A new row of `items`. */
export function insert(lsn: number, id: string, note: Cell = null, blob: Cell = null): RowEvent {
  return event('c', lsn, { key: [id], values: [id, note, blob] });
}

export function inserts(count: number, note: Cell = null): RowEvent[] {
  return Array.from({ length: count }, (_, index) => insert(index + 1, `id-${index + 1}`, note));
}

export function windowOf(
  events: readonly RowEvent[] | (() => AsyncIterable<RowEvent[]>),
  {
    shape = items,
    sequence = 1,
    to = 1_000_000,
  }: { shape?: TableShape; sequence?: number; to?: number } = {},
): AppendWindow {
  const batches =
    typeof events === 'function'
      ? events
      : async function* () {
          for (let start = 0; start < events.length; start += 7) yield events.slice(start, start + 7);
        };
  return {
    sourceId: 'shop',
    destination: 'siem',
    unit: unitName(shape),
    sequence,
    from: at(0),
    to: at(to),
    fencingToken: 1n,
    commitTimeUs: commitTime(to),
    tables: [{ shape, events: batches }],
  };
}

/** What the promise fails with; fails itself where it does not. */
export async function failure<T extends TidemarkError | RefusedRows = TidemarkError>(
  promise: Promise<unknown>,
): Promise<T> {
  const outcome = await promise.then(
    () => null,
    (error) => error as T,
  );
  if (outcome === null) throw new Error('expected a failure');
  return outcome;
}
