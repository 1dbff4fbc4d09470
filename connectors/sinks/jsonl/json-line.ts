/**
 * A Change as a line of JSON. One rule per type: smallint and integer are numbers, boolean is true or false, and
 * everything else is a string with Postgres' own text. So nothing depends on how a reader holds numbers.
 */

import type { Cell } from '../../../src/connector/sink.ts';
import type { ChangeRow } from '../../object-log/change-row.ts';
import type { StoredColumn } from '../../object-log/fields.ts';
import { type Storage, storageOf } from '../../object-log/storage.ts';

const asJson = new Set<Storage['kind']>(['smallint', 'integer', 'boolean']);
const text = storageOf('text');

/** How DuckDB gets a type back out of the lines. */
export function jsonStorageOf(type: string): Storage {
  const storage = storageOf(type);
  return asJson.has(storage.kind) ? storage : text;
}

interface Member {
  /** `"field":` */
  name: string;
  kind: Storage['kind'];
}

export class JsonLines {
  readonly #members: Member[];
  readonly #key: readonly number[];
  #commitTimeUs = -1n;
  #commitTime = '';

  constructor(columns: readonly StoredColumn[], keyColumns: readonly number[]) {
    this.#members = columns.map(({ field, storage }) => ({
      name: `${JSON.stringify(field)}:`,
      kind: storage.kind,
    }));
    this.#key = keyColumns;
  }

  /** With its newline. */
  line(row: ChangeRow): string {
    const { op, position, cells, unchanged, previousKey, before, since } = row;
    let line = `{"op":"${op}","position":"${position}","commit_time":"${this.#time(row.commitTimeUs)}"`;
    if (cells.length > 0) {
      if (this.#key.length > 0) line += `,"key":${this.#keyObject(this.#key.map((index) => cells[index]!))}`;
      line += `,"row":${this.#object(cells)}`;
    }
    if (unchanged !== null) line += `,"unchanged":${JSON.stringify(unchanged)}`;
    if (previousKey !== null) line += `,"old_key":${this.#keyObject(previousKey)}`;
    if (before !== null) line += `,"before":${this.#object(before)}`;
    if (row.image !== null) line += `,"image":"${row.image}"`;
    if (row.beforeImage !== null) line += `,"before_image":"${row.beforeImage}"`;
    if (since !== null) line += `,"since":"${since}"`;
    return `${line}}\n`;
  }

  #keyObject(key: readonly Cell[]): string {
    let members = '';
    for (let part = 0; part < key.length; part += 1) {
      if (part > 0) members += ',';
      members += member(this.#members[this.#key[part]!]!, key[part]!);
    }
    return `{${members}}`;
  }

  #object(cells: readonly (Cell | undefined)[]): string {
    let members = '';
    for (let index = 0; index < cells.length; index += 1) {
      const cell = cells[index];
      if (cell === undefined) continue;
      if (members !== '') members += ',';
      members += member(this.#members[index]!, cell);
    }
    return `{${members}}`;
  }

  /** ISO 8601 with microseconds; every Change of a Transaction has the same. */
  #time(commitTimeUs: bigint): string {
    if (commitTimeUs !== this.#commitTimeUs) {
      this.#commitTimeUs = commitTimeUs;
      const fraction = String(commitTimeUs % 1_000_000n).padStart(6, '0');
      const seconds = new Date(Number(commitTimeUs / 1_000_000n) * 1000).toISOString();
      this.#commitTime = `${seconds.slice(0, 19)}.${fraction}Z`;
    }
    return this.#commitTime;
  }
}

function member({ name, kind }: Member, cell: Cell): string {
  if (cell === null) return `${name}null`;
  if (kind === 'text') return name + JSON.stringify(cell);
  if (kind === 'boolean') return name + (cell === 't' ? 'true' : 'false');
  return name + cell;
}
