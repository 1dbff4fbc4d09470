/** What a Receipt says of a Window: counted also of tables that hold it already. */
import { hashNative, RowHash } from '../../../src/connector/row-hash.ts';
import { type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { RowCount, RowState } from '../../../src/connector/sink.ts';

export class WindowCounts {
  readonly rows = { upserted: 0, deleted: 0, appended: 0 };
  readonly #hash = new RowHash();

  get hash(): string {
    return this.#hash.hex;
  }

  truncate(shape: TableShape): void {
    this.#hash.add(['truncate', tableName(shape)]);
  }

  state(state: RowState): void {
    if (state.op === 'upsert') {
      this.rows.upserted += 1;
      if (state.native) this.#hash.addHash(hashNative(state.native, 'upsert'), 1);
      else this.#hash.add([state.op, ...state.key, ...state.values]);
      return;
    }
    if (state.op === 'delete') this.rows.deleted += 1;
    else this.rows.upserted += 1;
    this.#hash.add([state.op, ...state.key]);
  }

  count({ values, count }: RowCount): void {
    if (count > 0) this.rows.appended += count;
    else this.rows.deleted -= count;
    this.#hash.add(['count', String(count), ...values]);
  }
}
