/** A table without a key, of the in-memory source: a bag of rows, whose old images are whole (replica identity full). */
import type { Row } from '../../src/connector/sink.ts';
import { ModelTable } from './model-table.ts';
import type { Part } from './source.ts';

export class KeylessTable extends ModelTable {
  #rows: Row[] = [];
  /** Copies more or fewer since the part began, by the row's text. */
  #net = new Map<string, number>();

  retiredRows(): Row[] {
    return [];
  }

  rows(): Row[] {
    return this.#rows;
  }

  insert(...rows: Row[]): void {
    for (const row of rows) this.#add('c', row);
  }

  /** A row as a snapshot read it. */
  read(...rows: Row[]): void {
    for (const row of rows) this.#add('r', row);
  }

  update(before: Row, values: Row): void {
    const moment = this.source.next();
    this.#rows[this.#find(before)] = [...values];
    this.#count(before, -1);
    this.#count(values, 1);
    this.publish({ op: 'u', ...moment, values: [...values], before: [...before] });
  }

  delete(before: Row): void {
    const moment = this.source.next();
    this.#rows.splice(this.#find(before), 1);
    this.#count(before, -1);
    this.publish({ op: 'd', ...moment, values: [...before], before: [...before] });
  }

  truncate(): void {
    const moment = this.source.next();
    this.#rows = [];
    this.#net.clear();
    this.part().truncated = true;
    this.publish({ op: 't', ...moment });
  }

  protected settle(part: Part): void {
    for (const [text, count] of this.#net) {
      if (count !== 0) part.counts.push({ values: JSON.parse(text) as Row, count });
    }
    this.#net.clear();
  }

  protected reshape(convert: (row: Row) => Row): void {
    this.#rows = this.#rows.map(convert);
  }

  protected remake(): void {
    this.#rows = [];
  }

  #add(op: 'c' | 'r', row: Row): void {
    const moment = this.source.next();
    this.#rows.push([...row]);
    this.#count(row, 1);
    this.publish({ op, ...moment, values: [...row] });
  }

  #count(row: Row, delta: number): void {
    this.part();
    const text = JSON.stringify(row);
    this.#net.set(text, (this.#net.get(text) ?? 0) + delta);
  }

  #find(row: Row): number {
    const text = JSON.stringify(row);
    const found = this.#rows.findIndex((each) => JSON.stringify(each) === text);
    if (found === -1) throw new Error('the source has no such row');
    return found;
  }
}
