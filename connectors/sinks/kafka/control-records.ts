/**
 * What a topic of rows cannot say: a truncate, the end of a snapshot, a row that the source let go of. Told in a topic
 * of their own, as JSON, in the transaction of the Window. By `position` a consumer knows their place among the rows.
 */
import { type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { Cell, RowEvent, SinkContext } from '../../../src/connector/sink.ts';
import type { KafkaSettings } from './settings.ts';

export interface ControlMessage {
  key: string;
  value: string;
}

const meanings: Record<'t' | 's', string> = {
  t: 'rows before this Position are gone, which their topic does not say',
  s: 'rows whose newest record lies at or before `since` are not in the source, which their topic does not say',
};

export class ControlRecords {
  readonly #context: SinkContext;
  readonly #settings: KafkaSettings;
  readonly #warned = new Set<string>();

  constructor(context: SinkContext, settings: KafkaSettings) {
    this.#context = context;
    this.#settings = settings;
  }

  /** @returns null where nothing is to be written */
  of(event: RowEvent, op: 't' | 's' | 'e', shape: TableShape, topic: string): ControlMessage | null {
    const { control, controlEvictions } = this.#settings;
    if (op !== 'e') this.#warn(op, shape, topic);
    if (!control || (op === 'e' && !controlEvictions)) return null;
    const { schema, name } = shape;
    const more = {
      ...(event.since === undefined ? {} : { since: event.since }),
      ...(op === 'e' ? { key: keyOf(shape, event.key) } : {}),
    };
    const { position } = event;
    const commitTime = String(event.commitTimeUs);
    return {
      key: JSON.stringify({ schema, table: name }),
      value: JSON.stringify({ op, schema, table: name, topic, position, commit_time: commitTime, ...more }),
    };
  }

  #warn(op: 't' | 's', shape: TableShape, topic: string): void {
    const what = `${op} ${topic}`;
    if (this.#warned.has(what)) return;
    this.#warned.add(what);
    const control = this.#settings.control
      ? `it is told in ${this.#settings.controlTopic}`
      : 'control.records is off';
    this.#context.log(
      'warn',
      `${op === 't' ? 'a truncate' : 'the end of a snapshot'}: ${meanings[op]}; ${control}`,
      {
        table: tableName(shape),
        topic,
      },
    );
  }
}

/** Column and text in pairs: an object would take `__proto__` for something else. */
function keyOf({ keyColumns, columns }: TableShape, key: readonly Cell[]): [string, Cell][] {
  return keyColumns.map((column, i) => [columns[column]!.name, key[i]!]);
}
