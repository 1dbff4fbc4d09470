/** One random history of a source and of the workers that deliver it. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Cell, Row } from '../../src/connector/sink.ts';
import { columnOf, shapeOf, visit, visits } from './example-tables.ts';
import { gateAt, settled } from './gate.ts';
import type { KeyedTable } from './keyed-table.ts';
import type { KeylessTable } from './keyless-table.ts';
import type { Random } from './random.ts';
import { expectRefusal, type Trial, type Writer } from './trial.ts';
import type { WindowPlan } from './windows.ts';
import { planted } from './witness.ts';

const windows = 5;
const changesPerWindow = 25;
/** Also what a zombie gets to itself. */
const headStartMs = 60;

const texts: readonly Cell[] = [null, '', `${planted} 1`, "it's", 'a\nb\\', '🌊', 'y'.repeat(3000)];

export class Schedule {
  readonly #trial: Trial;
  readonly #random: Random;
  readonly #keyed: KeyedTable[];
  readonly #keyless: KeylessTable | null;
  readonly #written: WindowPlan[] = [];
  #nextColumn = 10;
  #snapshots = 0;
  /** By table, where one runs. */
  readonly #running = new Map<KeyedTable, string>();

  constructor(trial: Trial, random: Random) {
    this.#trial = trial;
    this.#random = random;
    const columns = ['id integer key', 'part text key', 'a text', 'b text', 'n numeric(10,2)'];
    this.#keyed = ['first', 'second'].map((name, i) =>
      trial.source.keyed(shapeOf(name, columns, { oid: 20_000 + i })),
    );
    this.#keyless = trial.stage.subject.refuses.keyless === undefined ? trial.source.keyless(visits) : null;
  }

  async run(): Promise<void> {
    let writer = await this.#trial.open();
    for (let n = 0; n < windows; n += 1) {
      this.#changes();
      for (const plan of this.#trial.cut()) {
        writer = await this.#deliver(writer, plan);
        this.#written.push(plan);
      }
    }
    await this.#trial.expectReadBack(writer);
  }

  #changes(): void {
    const { below, chance, pick } = this.#random;
    const count = below(changesPerWindow);
    const { source } = this.#trial;
    for (let change = 0; change < count; change += 1) {
      const several = chance(0.3);
      const work = () => {
        for (let i = several ? below(6) : 0; i >= 0; i -= 1) {
          if (this.#keyless && chance(0.25)) this.#changeKeyless(this.#keyless);
          else this.#changeKeyed(pick(this.#keyed));
        }
      };
      if (several) source.transaction(work);
      else work();
    }
  }

  #changeKeyed(table: KeyedTable): void {
    const { below, chance, pick } = this.#random;
    const keys = table.keys();
    const dice = below(100);
    if (keys.length === 0 || dice < 35) this.#insert(table);
    else if (dice < 60) table.update(pick(keys), this.#values(table), { untouched: this.#untouched(table) });
    else if (dice < 70) {
      const key = this.#key();
      if (!table.has(key))
        table.move(pick(keys), keyValues(table, key), { untouched: this.#untouched(table) });
    } else if (dice < 82) table.delete(pick(keys));
    else if (dice < 87) table.evict(pick(keys));
    else if (dice < 90) table.truncate();
    else if (dice < 95) {
      this.#alter(table);
      // The stream tells of the shape with the next Change.
      table.update(pick(keys), this.#values(table));
    } else this.#snapshot(table, chance(0.5));
  }

  #insert(table: KeyedTable): void {
    const key = this.#key();
    // Of an evicted row's key too: then it is the source's again.
    if (table.keys().some((each) => each.join() === key.join())) return;
    const values = this.#values(table);
    const named = { ...values, ...keyValues(table, key) };
    table.insert(table.shape.columns.map(({ name, missing }): Cell => named[name] ?? missing ?? null));
  }

  #changeKeyless(table: KeylessTable): void {
    const { below, pick } = this.#random;
    const rows = table.rows();
    const dice = below(100);
    const row: Row = visit(below(6));
    if (rows.length === 0 || dice < 55) table.insert(row);
    else if (dice < 75) table.update([...pick(rows)], row);
    else if (dice < 97) table.delete([...pick(rows)]);
    else table.truncate();
  }

  #key(): Cell[] {
    return [String(this.#random.below(12)), this.#random.pick(['p', "q'", ''])];
  }

  /** Some of the columns that are not the key. */
  #values(table: KeyedTable): Record<string, Cell> {
    const values: Record<string, Cell> = {};
    for (const { name, key, type } of table.shape.columns) {
      if (key || this.#random.chance(0.4)) continue;
      values[name] = type === 'text' ? this.#random.pick(texts) : `${this.#random.below(100)}.50`;
    }
    return values;
  }

  /** Texts that the statement neither wrote nor the stream has; an update that writes them is made without. */
  #untouched(table: KeyedTable): string[] {
    return table.shape.columns.flatMap(({ name, key, type }) =>
      !key && type === 'text' && this.#random.chance(0.3) ? [name] : [],
    );
  }

  #alter(table: KeyedTable): void {
    const { below, chance } = this.#random;
    const { columns } = table.shape;
    const free = columns.filter(({ key, type }) => !key && type === 'text');
    this.#nextColumn += 1;
    const added = columnOf(`c${this.#nextColumn}`, 'text', this.#nextColumn);
    const changed =
      free.length < 2 || below(3) === 0
        ? [...columns, chance(0.5) ? { ...added, missing: 'default' } : added]
        : chance(0.5)
          ? columns.filter((column) => column !== free[0])
          : columns.map((column) =>
              column === free[1] ? { ...column, name: `r${this.#nextColumn}` } : column,
            );
    table.alter(shapeOf(table.shape.name, changed, { oid: table.shape.oid! }));
  }

  #snapshot(table: KeyedTable, some: boolean): void {
    const running = this.#running.get(table);
    if (running === undefined) {
      // Rows that came before it in its first Window are in the source: no snapshot would miss them.
      if (!table.clean) return;
      this.#snapshots += 1;
      const id = `snapshot ${this.#snapshots}`;
      this.#running.set(table, id);
      table.beginSnapshot(id);
      return;
    }
    for (const row of table.sourceRows()) if (some && this.#random.chance(0.5)) table.read(row);
    table.endSnapshot(running);
    this.#running.delete(table);
  }

  /** @returns who has the Unit afterwards */
  async #deliver(writer: Writer, plan: WindowPlan): Promise<Writer> {
    const { below, pick } = this.#random;
    const { subject } = this.#trial.stage;
    const failpoint = pick(subject.failpoints);
    switch (below(8)) {
      case 0: {
        await writer.write(plan);
        await writer.write(plan);
        return writer;
      }
      case 1: {
        await writer.close();
        const doomed = await this.#trial.open({
          failpoint: async (name) => {
            if (name === failpoint) throw new Error('the worker died here');
          },
        });
        await settled(doomed.write(plan));
        await doomed.close();
        const heir = await this.#trial.open();
        await heir.writeUntilTaken(plan);
        return heir;
      }
      case 2: {
        const gate = gateAt(failpoint);
        gate.close();
        const zombie = await this.#trial.open({ failpoint: gate.failpoint });
        const stuck = settled(zombie.write(plan));
        await Promise.race([gate.waits, stuck]);
        const heir = await this.#trial.open();
        const takeover = heir.writeUntilTaken(plan);
        await Promise.race([settled(takeover), sleep(headStartMs)]);
        gate.open();
        await stuck;
        await takeover;
        return heir;
      }
      case 3: {
        const old = writer;
        const heir = await this.#trial.open();
        await heir.writeUntilTaken(plan);
        if (subject.mode !== 'send') await expectRefusal(old.write(plan), 'TM403');
        return heir;
      }
      case 4: {
        const earlier = this.#written.filter(({ unit }) => unit === plan.unit);
        if (earlier.length > 0) await writer.write(pick(earlier));
        await writer.write(plan);
        return writer;
      }
      default:
        await writer.write(plan);
        return writer;
    }
  }
}

function keyValues({ shape }: KeyedTable, key: readonly Cell[]): Record<string, Cell> {
  return Object.fromEntries(shape.keyColumns.map((column, i) => [shape.columns[column]!.name, key[i]!]));
}
