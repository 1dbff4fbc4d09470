/** A random history of a few rows that are let go of, come back and change, of a table that is truncated again and again. */
import type { Cell } from '../../src/connector/sink.ts';
import { shapeOf } from './example-tables.ts';
import type { KeyedTable } from './keyed-table.ts';
import type { Random } from './random.ts';
import type { Trial } from './trial.ts';

const windows = 6;
const changesPerWindow = 16;
const ids = ['1', '2', '3', '4', '5', '6'];

export class RetiredSchedule {
  readonly #trial: Trial;
  readonly #random: Random;
  readonly #table: KeyedTable;
  #changes = 0;

  constructor(trial: Trial, random: Random) {
    this.#trial = trial;
    this.#random = random;
    this.#table = trial.source.keyed(
      shapeOf('let_go', ['id integer key', 'a text', 'b text'], { oid: 21_000 }),
    );
  }

  async run(): Promise<void> {
    const writer = await this.#trial.open();
    for (let window = 0; window < windows; window += 1) {
      for (let left = 1 + this.#random.below(changesPerWindow); left > 0; left -= 1) this.#change();
      await this.#trial.deliver(writer);
      await this.#trial.expectSame();
    }
    await this.#trial.expectReadBack(writer);
  }

  #change(): void {
    const { below, pick, chance } = this.#random;
    const table = this.#table;
    this.#changes += 1;
    const text = `${this.#changes}`;
    const live = table.keys();
    // Of an evicted row's key too: then it is the source's again.
    const free = ids.filter((id) => !live.some(([key]) => key === id));
    const dice = below(100);
    if (dice < 12) table.truncate();
    else if (live.length === 0 || (dice < 40 && free.length > 0)) this.#insert(pick(free), text);
    else if (dice < 60) table.update(pick(live), { a: text }, { untouched: chance(0.6) ? ['b'] : [] });
    else if (dice < 85) table.evict(pick(live));
    else if (dice < 93) {
      // Also one that was let go of: what is erased is erased everywhere.
      const gone = chance(0.5) ? ids.filter((id) => table.has([id])).map((id) => [id]) : live;
      table.delete(pick(gone));
    } else {
      const unknown = free.filter((id) => !table.has([id]));
      if (unknown.length > 0) table.move(pick(live), { id: pick(unknown), a: text }, { untouched: ['b'] });
    }
  }

  #insert(id: string, text: string): void {
    const row: Cell[] = [id, text, `b ${text}`];
    if (this.#random.chance(0.3)) this.#table.read(row);
    else this.#table.insert(row);
  }
}
