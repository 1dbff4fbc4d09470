/**
 * Merges one table without a key: so many copies of a row image more, or fewer. More of them are added without a look at
 * what is there; fewer are taken from what is there, so that no image ever has less than none.
 */
import { setImmediate } from 'node:timers/promises';
import { TidemarkError } from '../../../src/connector/failure.ts';
import { tableName } from '../../../src/connector/shape.ts';
import type { MergeTable } from '../../../src/connector/sink.ts';
import type { MergeRun } from './merge-run.ts';

const batchRows = 100_000;

export async function mergeKeyless(run: MergeRun, table: MergeTable): Promise<void> {
  const { layout } = run.target;
  const fewer = new Fewer(run, table.truncated);
  for await (const counts of table.counts()) {
    for (const { values, count, mayBeAbsent = 0 } of counts) {
      if (count > 0) run.rows.appended += count;
      else run.rows.deleted -= count;
      run.hash.add(['count', String(count), ...values]);
      if (count < 0) {
        await fewer.add(layout.keylessLine(values, String(count)), -count, mayBeAbsent);
        continue;
      }
      const sending = run.stage.put(layout.keylessLine(values, String(count)));
      if (sending) await sending;
    }
    await setImmediate();
  }
  await fewer.flush();
}

class Fewer {
  readonly #run: MergeRun;
  readonly #truncated: boolean;
  #lines = '';
  #rows = 0;

  constructor(run: MergeRun, truncated: boolean) {
    this.#run = run;
    this.#truncated = truncated;
  }

  async add(line: string, copies: number, mayBeAbsent: number): Promise<void> {
    if (this.#truncated) {
      if (copies > mayBeAbsent) throw lostRows(this.#run, copies - mayBeAbsent);
      return;
    }
    this.#lines += `${line.slice(0, -1)}\t${mayBeAbsent}\n`;
    if (++this.#rows >= batchRows || this.#lines.length >= this.#run.maker.blockBytes) await this.flush();
  }

  async flush(): Promise<void> {
    if (this.#rows === 0) return;
    const run = this.#run;
    const { layout, rows } = run.target;
    const { server, name } = run.unit;
    await run.stage.insertFill(['_absent Int64'], this.#lines);
    const fill = run.stage.fillTable;
    const there = `(SELECT _image, _copies FROM ${server.table(rows)} FINAL PREWHERE _kind = 0 AND _image IN (SELECT _image FROM ${fill}))`;
    const joined = `FROM ${fill} AS p LEFT JOIN ${there} AS t ON t._image = p._image`;
    // Without a row there, `_copies` is 0.
    const lacking = await server.select(
      `SELECT toString(sum(greatest(0, -p._copies - p._absent - t._copies))) ${joined}`,
      name,
    );
    if (lacking[0]![0] !== '0') throw lostRows(run, Number(lacking[0]![0]));
    const selected = layout.names.map((column) =>
      column === '_copies' ? '-least(-p._copies, t._copies) AS _copies' : `p.${column} AS ${column}`,
    );
    await run.stage.insertSelect(layout.names, `SELECT ${selected.join(', ')} ${joined} WHERE t._copies > 0`);
    this.#lines = '';
    this.#rows = 0;
  }
}

function lostRows(run: MergeRun, copies: number): TidemarkError {
  return new TidemarkError(
    'TM407',
    `${tableName(run.target.layout.shape)}: ${copies} rows were removed, but the destination does not have them`,
  );
}
