/**
 * Merges one table that has a key. Whole rows and deletes go straight into the stage: which row of a key counts is its
 * Position's business. What needs something of the row that is there, updates that left columns unchanged and rows that
 * are retired, goes into a table of its own and is completed by one statement a batch, which reads those rows alone, as
 * they were before this Window.
 */
import { setImmediate } from 'node:timers/promises';
import { TidemarkError } from '../../../src/connector/failure.ts';
import { tableName } from '../../../src/connector/shape.ts';
import type { Cell, MergeTable, RowState } from '../../../src/connector/sink.ts';
import type { MergeRun } from './merge-run.ts';
import { quoteText } from './names.ts';
import { versionOf } from './version.ts';

/** A join keeps a batch in the server's memory. */
const batchRows = 100_000;

export async function mergeKeyed(run: MergeRun, table: MergeTable): Promise<void> {
  const fill = new Fill(run, table.truncated);
  const { layout } = run.target;
  const { stage } = run;
  for await (const states of table.states()) {
    for (const state of states) {
      count(run, state);
      const version = versionOf(state.position);
      const { key } = state;
      if (state.op === 'retire') {
        await fill.add([], key, key, version, true, false);
        continue;
      }
      if (state.op === 'upsert' && layout.unchanged(state.values).length > 0) {
        if (!state.fillFrom) {
          throw new TidemarkError(
            'TM901',
            `${tableName(layout.shape)}: a partial row came without the key that completes it`,
          );
        }
        await fill.add(
          state.values,
          key,
          state.fillFrom,
          version,
          state.retired === true,
          state.mayBeAbsent === true,
        );
        continue;
      }
      const line =
        state.op === 'delete'
          ? layout.keyedLine([], key, { version, deleted: true })
          : layout.keyedLine(state.values, key, { version, retired: state.retired === true });
      const sending = stage.put(line);
      if (sending) await sending;
    }
    // Blocks are sent in turns of the event loop, which promises alone never reach.
    await setImmediate();
  }
  await fill.flush();
}

function count(run: MergeRun, state: RowState): void {
  if (state.op === 'upsert') {
    run.rows.upserted++;
    run.hash.add([state.op, ...state.key, ...state.values]);
  } else {
    if (state.op === 'delete') run.rows.deleted++;
    else run.rows.upserted++;
    run.hash.add([state.op, ...state.key]);
  }
}

class Fill {
  readonly #run: MergeRun;
  readonly #truncated: boolean;
  readonly #columns: string[];
  #lines = '';
  #rows = 0;
  /** Rows whose source must be there. */
  #required = 0;
  /** Columns that a row of the batch leaves as they are. */
  #unchanged = new Set<number>();

  constructor(run: MergeRun, truncated: boolean) {
    this.#run = run;
    this.#truncated = truncated;
    this.#columns = [
      ...run.target.layout.sort.map(({ storage }, k) => `_from${k} ${storage.type}`),
      '_unchanged Array(LowCardinality(String))',
      '_optional UInt8',
    ];
  }

  async add(
    values: readonly (Cell | undefined)[],
    key: Cell[],
    from: Cell[],
    version: string,
    retired: boolean,
    optional: boolean,
  ): Promise<void> {
    const { layout } = this.#run.target;
    // A retired row brings no value at all.
    const partial = values.length > 0 ? [...values] : layout.columns.map(() => undefined);
    const unchanged = layout.unchanged(partial);
    // The truncate left but retired rows: nothing that an update could be of.
    if (this.#truncated && values.length > 0) {
      if (!optional) throw missingSource(this.#run, 1);
      return;
    }
    for (const i of unchanged) this.#unchanged.add(i);
    if (!optional) this.#required++;
    const ids = unchanged.map((i) => `'${layout.columns[i]!.id}'`).join(',');
    const line = layout.keyedLine(partial, key, { version, retired });
    this.#lines += `${line.slice(0, -1)}\t${layout.keyFields(from).join('\t')}\t[${ids}]\t${optional ? 1 : 0}\n`;
    if (++this.#rows >= batchRows || this.#lines.length >= this.#run.maker.blockBytes) await this.flush();
  }

  async flush(): Promise<void> {
    if (this.#rows === 0) return;
    const run = this.#run;
    const { layout, rows } = run.target;
    const { server, name } = run.unit;
    await run.stage.insertFill(this.#columns, this.#lines);
    const fill = run.stage.fillTable;
    const from = layout.sort.map((_, k) => `_from${k}`);
    // Before FINAL, so that of other keys nothing but the key is read. It may stand there, because all rows of a key pass
    // it or none.
    const sources = `(SELECT * FROM ${server.table(rows)} FINAL PREWHERE _kind = 0 AND ${layout.sortTuple()} IN (SELECT ${from.join(', ')} FROM ${fill}))`;
    if (this.#required > 0) {
      const missing = await server.select(
        `SELECT count() FROM ${fill} WHERE _optional = 0 AND (${from.join(', ')}) NOT IN (SELECT ${layout.sort.map(({ name: sort }) => sort).join(', ')} FROM ${sources})`,
        name,
      );
      if (missing[0]![0] !== '0') throw missingSource(run, Number(missing[0]![0]));
    }
    const taken = new Set([...this.#unchanged].map((i) => layout.columns[i]!.id));
    const selected = layout.names.map((column) => {
      if (column === '_exact') {
        return 'mapConcat(mapFilter((id, text) -> has(p._unchanged, id), t._exact), mapFilter((id, text) -> NOT has(p._unchanged, id), p._exact)) AS _exact';
      }
      return taken.has(column)
        ? `if(has(p._unchanged, ${quoteText(column)}), t.${column}, p.${column}) AS ${column}`
        : `p.${column} AS ${column}`;
    });
    const on = layout.sort.map(({ name: sort }, k) => `t.${sort} = p._from${k}`);
    await run.stage.insertSelect(
      layout.names,
      `SELECT ${selected.join(', ')} FROM ${sources} AS t INNER JOIN ${fill} AS p ON ${on.join(' AND ')}`,
    );
    this.#lines = '';
    this.#rows = 0;
    this.#required = 0;
    this.#unchanged = new Set();
  }
}

/** TM407, with the number of rows and the table only. */
function missingSource(run: MergeRun, missing: number): TidemarkError {
  return new TidemarkError(
    'TM407',
    `${tableName(run.target.layout.shape)}: ${missing} updates left a column unchanged, but the row that has its value is missing`,
  );
}
