/** Large rows, wide tables and large Windows. */
import { randomBytes } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { formatPosition, parsePosition } from '../../../src/connector/position.ts';
import type { Row, RowEvent, RowState } from '../../../src/connector/sink.ts';
import { columnOf, shapeOf } from '../example-tables.ts';
import type { Moment } from '../source.ts';
import type { Subject } from '../subject.ts';
import type { InTrial } from '../suite.ts';
import { expectRefusal } from '../trial.ts';

const megabyte = 1 << 20;
const rowsPerBatch = 1000;
/** Enough for a batch that is written, the next one, and those whose turn to be forgotten has not come. */
const batchesAtOnce = 24;
/** Of a Window with 100 MB of text. */
const mostGrowth = 64 * megabyte;

export function sizeCases(subject: Subject, inTrial: InTrial): void {
  const { 'many-columns': narrow, 'large-row': small } = subject.refuses;

  test(
    small === undefined ? 'rows of 10 MB' : `rows of 10 MB are refused with ${small}`,
    inTrial(async (trial) => {
      const writer = await trial.open();
      const table = trial.source.keyed(
        shapeOf('large', ['id integer key', 'body text', 'raw bytea', 'note text']),
      );
      const random = randomBytes(5 * megabyte).toString('hex');
      table.insert(['1', random, null, 'text'], ['2', 'small', null, null]);
      if (small !== undefined) {
        await expectRefusal(writer.write(trial.cutOne()), small);
        return;
      }
      table.insert(['3', null, `\\x${random}`, 'bytes']);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
      table.update(['1'], { note: 'changed' }, { untouched: ['body', 'raw'] });
      table.move(['3'], { id: '4' }, { untouched: ['body', 'raw'] });
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  test(
    narrow === undefined ? 'a table of 1,000 columns' : `a table of 1,000 columns is refused with ${narrow}`,
    inTrial(async (trial) => {
      const writer = await trial.open();
      const types = ['text', 'integer', 'numeric(10,2)', 'boolean', 'jsonb'];
      const values = ['text', '7', '1.50', 't', '{"a": 1}'];
      const columns = Array.from({ length: 999 }, (_, i) => columnOf(`column_${i}`, types[i % 5]!, i + 2));
      const table = trial.source.keyed(shapeOf('wide', [columnOf('id', 'integer', 1, true), ...columns]));
      for (let n = 0; n < 20; n += 1)
        table.insert([String(n), ...columns.map((_, i) => ((i + n) % 3 === 0 ? null : values[i % 5]!))]);
      if (narrow !== undefined) {
        await expectRefusal(writer.write(trial.cutOne()), narrow);
        return;
      }
      await trial.deliver(writer);
      table.update(['3'], { column_998: 'f' }, { untouched: ['column_0', 'column_995'] });
      table.delete(['4']);
      await trial.deliver(writer);
      await trial.expectReadBack(writer);
    }),
  );

  const rows = subject.manyRows ?? 200_000;
  test(
    `a Window of ${rows} rows is written in bounded memory`,
    inTrial(async (trial) => {
      const writer = await trial.open();
      const flood = new Flood(rows, trial.source.next());
      trial.source.keyed(flood.shape).insert(flood.values(0));
      const receipt = await writer.write(trial.cutOne(), (_, of) => flood.batches(of));
      expect(receipt.rows.upserted + receipt.rows.appended).toBe(rows);
      expect(flood.mostBatches, 'batches that somebody still holds').toBeLessThanOrEqual(batchesAtOnce);
      expect(flood.mostGrowth, 'bytes that the process grew by').toBeLessThanOrEqual(mostGrowth);
      const shape = flood.shape;
      const seen = subject.mode === 'send' ? await trial.place.events!(shape) : await trial.place.rows(shape);
      expect(seen).toHaveLength(rows);
    }),
  );
}

/** Rows made as they are asked for, and what is left of them in memory. */
class Flood {
  readonly shape = shapeOf('flood', ['id integer key', 'name text', 'body text']);
  mostBatches = 0;
  mostGrowth = 0;
  readonly #rows: number;
  readonly #moment: Moment;
  readonly #filling = 'abcdefghij'.repeat(48);

  constructor(rows: number, moment: Moment) {
    this.#rows = rows;
    this.#moment = moment;
  }

  values(n: number): Row {
    return [String(n), `name of ${n}`, `${n} ${this.#filling}`];
  }

  #state(n: number): RowState {
    const { position } = this.#moment;
    return { op: 'upsert', key: [String(n)], values: this.values(n), fillFrom: null, position };
  }

  #event(n: number): RowEvent {
    const position = formatPosition({ ...parsePosition(this.#moment.position), ordinal: n + 2 });
    const more = { previousKey: null, before: null };
    return { op: 'c', ...this.#moment, position, key: [String(n)], values: this.values(n), ...more };
  }

  async *batches<T>(of: 'states' | 'counts' | 'events'): AsyncGenerator<T[]> {
    if (of === 'counts') return;
    const collect = garbageCollector();
    collect();
    const before = heldBytes();
    const given: WeakRef<object>[] = [];
    for (let first = 0; first < this.#rows; first += rowsPerBatch) {
      // As from a store; and what a WeakRef has seen lives to the end of the turn.
      await setImmediate();
      if (given.length % 20 === 19) {
        collect();
        this.mostGrowth = Math.max(this.mostGrowth, heldBytes() - before);
        this.mostBatches = Math.max(this.mostBatches, given.filter((each) => each.deref()).length);
      }
      const length = Math.min(rowsPerBatch, this.#rows - first);
      const batch = Array.from({ length }, (_, i) =>
        of === 'states' ? this.#state(first + i) : this.#event(first + i),
      );
      given.push(new WeakRef(batch));
      yield batch as T[];
    }
  }
}

function garbageCollector(): () => void {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as () => void;
}

function heldBytes(): number {
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
