/** From a Change to the records that tell of it in its table's topic. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { tableName } from '../../../src/connector/shape.ts';
import type { Cell, PartialRow, RowEvent } from '../../../src/connector/sink.ts';
import type { TableFields } from './fields.ts';
import { isExact } from './forms.ts';
import type { MetadataField } from './options.ts';
import type { RowFormat } from './row-format.ts';
import type { RowSettings } from './settings.ts';

export interface OutRecord {
  key: Buffer | null;
  value: Buffer | null;
  headers: Record<string, string>;
}

export class TableRecords {
  readonly fields: TableFields;
  readonly #format: RowFormat;
  readonly #settings: RowSettings;
  /** Columns whose form may be inexact, by index. */
  readonly #doubtful: number[];

  constructor(fields: TableFields, format: RowFormat, settings: RowSettings) {
    this.fields = fields;
    this.#format = format;
    this.#settings = settings;
    const sure = ['boolean', 'int16', 'int32', 'int64', 'string', 'bytes'];
    this.#doubtful = fields.columns.flatMap(({ form }, i) => (sure.includes(form.kind) ? [] : [i]));
  }

  /** Of `c`, `u`, `r` and `d`. */
  of(event: RowEvent): OutRecord[] {
    if (event.op === 'd') return this.#deleted(event, event.values, event.key);
    if (event.op === 'u' && this.fields.keyless) {
      return [...this.#deleted(event, this.#oldRow(event), []), this.#row(event)];
    }
    return [this.#row(event)];
  }

  #row(event: RowEvent): OutRecord {
    const { values } = event;
    return {
      key: this.#format.key(event.key),
      value: this.#format.value(values, this.#metadata(event, 'false', this.#unchanged(values))),
      headers: this.#headers(event, values),
    };
  }

  #deleted(event: RowEvent, values: PartialRow, key: readonly Cell[]): OutRecord[] {
    const { deletes } = this.#settings;
    const record = { key: this.#format.key(key) };
    const records: OutRecord[] = [];
    if (deletes !== 'tombstone' || this.fields.keyless) {
      // What the replica identity does not show is null, as in Debezium's: nobody reads on in a deleted row.
      const shown = this.fields.columns.map((_, i) => values[i] ?? null);
      const value = this.#format.value(shown, this.#metadata(event, 'true', null));
      records.push({ ...record, value, headers: this.#headers(event, shown) });
    }
    if (deletes !== 'rewrite' && !this.fields.keyless) {
      records.push({ ...record, value: null, headers: { 'tidemark.position': event.position } });
    }
    return records;
  }

  #oldRow({ before }: RowEvent): PartialRow {
    if (before) return before;
    throw new TidemarkError(
      'TM405',
      `${tableName(this.fields.shape)} has no key, and a change does not tell its old row`,
      {
        remedy: `ALTER TABLE ${tableName(this.fields.shape)} REPLICA IDENTITY FULL; at the source, or give it a primary key.`,
      },
    );
  }

  #metadata(event: RowEvent, deleted: 'true' | 'false', unchanged: string | null): Cell[] {
    const { schema, name } = this.fields.shape;
    const all: Record<MetadataField, Cell> = {
      // Of an update in a table without a key there are two records: this one takes the old row away.
      op: deleted === 'true' ? 'd' : event.op,
      position: event.position,
      commit_time: String(event.commitTimeUs),
      deleted,
      schema,
      table: name,
      unchanged,
    };
    return this.fields.metadata.map(({ of }) => all[of]);
  }

  #unchanged(values: PartialRow): string | null {
    if (!values.includes(undefined)) return null;
    return JSON.stringify(
      this.fields.columns.flatMap(({ name }, i) => (values[i] === undefined ? [name] : [])),
    );
  }

  #headers(event: RowEvent, values: PartialRow): Record<string, string> {
    const headers: Record<string, string> = { 'tidemark.position': event.position };
    const unchanged = this.#unchanged(values);
    if (unchanged !== null) headers['tidemark.unchanged'] = unchanged;
    if (event.previousKey) headers['tidemark.previous.key'] = JSON.stringify(event.previousKey);
    const bare = this.#settings.format === 'json' && !this.#settings.schemas;
    let exact: [string, string][] | undefined;
    for (const i of bare ? [] : this.#doubtful) {
      const value = values[i];
      const { name, form } = this.fields.columns[i]!;
      if (value == null || isExact(form, value, this.#settings.format)) continue;
      exact ??= [];
      exact.push([name, value]);
    }
    // Not Object.fromEntries alone: a column may be called __proto__.
    if (exact)
      headers['tidemark.exact'] =
        `{${exact.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(',')}}`;
    return headers;
  }
}
