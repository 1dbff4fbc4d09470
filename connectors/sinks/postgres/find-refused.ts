/**
 * Which rows of a table the destination refuses. After a merge has failed for what is in a row, the Window is written once
 * more in a transaction that is never committed: a few hundred rows at a time, each lot behind a savepoint, and a lot that
 * fails in halves. A COPY would name the line, but only of the first one, and the server names no row of a set-based
 * statement; this finds all of them in one pass, for about twenty statements each.
 */
import type { RefusedRow } from '../../../src/connector/failure.ts';
import type { Position } from '../../../src/connector/position.ts';
import type { TableId } from '../../../src/connector/shape.ts';
import type { Cell, MergeTable, RowState } from '../../../src/connector/sink.ts';
import type { Session } from './client.ts';
import {
  isAboutRows,
  type RefusedStatement,
  refusalReason,
  type SessionError,
  sqlState,
} from './failures.ts';
import { emptyTable, type HouseColumns } from './house-columns.ts';
import { KeyedPlan } from './keyed-plan.ts';
import { valuesRows } from './merge-keyed.ts';
import { quoteName, quoteTable } from './quote.ts';
import { smallCharacters, valuesRelation } from './stage.ts';

/** Found at once; the others come when the Window is written again without these. */
const mostRows = 200;
const lotRows = 500;

interface Candidate {
  cells: Cell[];
  /** Of the Changes that brought it; of a table without a key they are looked up when the row is refused. */
  position: Position | null;
}

interface Suspect {
  row: Candidate;
  write: (rows: readonly Candidate[]) => string;
  failure: SessionError;
}

export class RefusalSearch {
  readonly #session: Session;
  /** The source's name of a table. */
  readonly #sourceOf: (table: TableId) => TableId;
  /** What has to be asked after each lot, where a deferred constraint refused. */
  readonly #checks: string[];
  #suspects: Suspect[] = [];
  readonly rows: RefusedRow[] = [];

  constructor(session: Session, sourceOf: (table: TableId) => TableId, refusal: RefusedStatement) {
    this.#session = session;
    this.#sourceOf = sourceOf;
    // Of no other constraint: what a table before this one owes to it is not at stake.
    const checked = `SET CONSTRAINTS ${refusal.constraint ?? 'ALL'}`;
    this.#checks = refusal.atCommit ? [`${checked} IMMEDIATE`, `${checked} DEFERRED`] : [];
  }

  /** Enough was found for one round. */
  get full(): boolean {
    return this.rows.length + this.#suspects.length >= mostRows;
  }

  async table(table: MergeTable, house: HouseColumns): Promise<void> {
    await (table.shape.keyColumns.length > 0 ? this.#keyed(table, house) : this.#keyless(table, house));
    await this.#askAgain();
    await this.#settle(table);
  }

  /** The steps of a merge (merge-keyed.ts), each over all rows. */
  async #keyed(table: MergeTable, house: HouseColumns): Promise<void> {
    const plan = new KeyedPlan(table.shape, house, { rewrite: false, binary: false });
    const keys = (rows: readonly Candidate[]) => valuesRelation('g', plan.keyColumns, cellsOf(rows));
    if (table.truncated && !plan.keepsRows) await this.#session.run(plan.truncate());
    const kept = (state: RowState) =>
      !table.truncated || house.retired || (state.op === 'upsert' && state.retired === true);
    const steps: [(state: RowState) => Cell[] | null, (rows: readonly Candidate[]) => string][] = [
      [
        (state) =>
          state.op === 'upsert' && plan.wholeRow(state) === null && (!table.truncated || state.retired)
            ? plan.partialRow(state)
            : null,
        (rows) => plan.fill(valuesRelation('p', plan.partialColumns, cellsOf(rows))),
      ],
      [(state) => (state.op === 'retire' ? state.key : null), (rows) => plan.retire(keys(rows))],
      [
        (state) => (state.op === 'delete' && kept(state) ? state.key : null),
        (rows) => plan.remove(keys(rows), null),
      ],
      [
        (state) => (state.op === 'upsert' ? plan.wholeRow(state) : null),
        (rows) => plan.upsert(valuesRows(cellsOf(rows))),
      ],
    ];
    for (const [i, [cells, write]] of steps.entries()) {
      if (i === 2 && table.truncated && plan.keepsRows) await this.#session.run(plan.truncate());
      const lots = new Lots((rows) => this.#try(rows, write));
      for await (const states of table.states()) {
        for (const state of states) {
          const row = cells(state);
          if (row) await lots.add({ cells: row, position: state.position });
        }
        if (this.full) return;
      }
      await lots.flush();
    }
  }

  /** Rows that go are not looked at: nothing but a trigger could refuse that. */
  async #keyless(table: MergeTable, house: HouseColumns): Promise<void> {
    const { shape } = table;
    const columns = shape.columns.map(({ name }) => quoteName(name)).join(', ');
    const target = quoteTable(shape);
    if (table.truncated) await this.#session.run(emptyTable(target, house));
    const lots = new Lots((rows) =>
      this.#try(rows, (each) => `INSERT INTO ${target} (${columns}) ${valuesRows(cellsOf(each))}`),
    );
    for await (const counts of table.counts()) {
      for (const { values, count } of counts) {
        // A second copy may be what an index of somebody's refuses.
        for (let copy = 0; copy < Math.min(count, 2); copy++)
          await lots.add({ cells: values, position: null });
      }
      if (this.full) return;
    }
    await lots.flush();
  }

  async #try(rows: readonly Candidate[], write: Suspect['write']): Promise<void> {
    if (rows.length === 0 || this.full) return;
    const failure = await this.#attempt(write(rows));
    if (!failure) return;
    if (rows.length === 1) {
      this.#suspects.push({ row: rows[0]!, write, failure });
      return;
    }
    const half = rows.length >> 1;
    await this.#try(rows.slice(0, half), write);
    await this.#try(rows.slice(half), write);
  }

  /** @returns why the rows were refused, or null where they are in. @throws SessionError for any other reason */
  async #attempt(sql: string): Promise<SessionError | null> {
    try {
      await this.#session.run(
        'SAVEPOINT tidemark_row',
        sql,
        ...this.#checks,
        'RELEASE SAVEPOINT tidemark_row',
      );
      return null;
    } catch (error) {
      if (!isAboutRows(error)) throw error;
      await this.#session.run('ROLLBACK TO SAVEPOINT tidemark_row', 'RELEASE SAVEPOINT tidemark_row');
      return error;
    }
  }

  /** A reference, a trigger or a deferred constraint may want another row first, which is in by now. */
  async #askAgain(): Promise<void> {
    for (let left = -1; left !== this.#suspects.length; ) {
      left = this.#suspects.length;
      const suspects = this.#suspects;
      this.#suspects = [];
      for (const suspect of suspects) {
        const state = sqlState(suspect.failure.raw)!;
        const waits = this.#checks.length > 0 || state === '23503' || state.startsWith('P0');
        const failure = waits ? await this.#attempt(suspect.write([suspect.row])) : suspect.failure;
        if (failure) this.#suspects.push({ ...suspect, failure });
      }
    }
  }

  async #settle(table: MergeTable): Promise<void> {
    const suspects = this.#suspects;
    this.#suspects = [];
    const name = this.#sourceOf(table.shape);
    const unplaced = new Map<string, string>();
    for (const { row, failure } of suspects) {
      const reason = refusalReason(failure);
      if (row.position === null) unplaced.set(JSON.stringify(row.cells), reason);
      else this.rows.push({ table: name, position: row.position, reason });
    }
    if (unplaced.size === 0) return;
    for await (const events of table.events()) {
      for (const { op, values, position } of events) {
        const reason = op === 'd' || op === 't' ? undefined : unplaced.get(JSON.stringify(values));
        if (reason !== undefined) this.rows.push({ table: name, position, reason });
      }
    }
  }
}

/** Rows together that make a statement of moderate size. */
class Lots {
  readonly #write: (rows: readonly Candidate[]) => Promise<void>;
  #rows: Candidate[] = [];
  #characters = 0;

  constructor(write: (rows: readonly Candidate[]) => Promise<void>) {
    this.#write = write;
  }

  async add(row: Candidate): Promise<void> {
    this.#rows.push(row);
    for (const cell of row.cells) this.#characters += (cell?.length ?? 0) + 4;
    if (this.#rows.length >= lotRows || this.#characters >= smallCharacters) await this.flush();
  }

  async flush(): Promise<void> {
    const rows = this.#rows;
    this.#rows = [];
    this.#characters = 0;
    await this.#write(rows);
  }
}

function cellsOf(rows: readonly Candidate[]): Cell[][] {
  return rows.map(({ cells }) => cells);
}
