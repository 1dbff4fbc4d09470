/** Rows as text on their way into a data file: one array of JSON a row, so that it is one call into DuckDB. */
import { BIGINT, type DuckDBConnection, INTEGER, VARCHAR } from '@duckdb/node-api';
import { castFromText } from '../duckdb/cast-text.ts';
import { ChunkAppender } from '../duckdb/chunk-appender.ts';
import { beforeJson } from './before-json.ts';
import type { ChangeRow } from './change-row.ts';
import type { StoredColumn } from './fields.ts';
import { quoteName } from './sql-text.ts';

/** What stands before the cells in a row's array. */
const headLength = 8;

/** Of a table of such rows. */
export const textColumns = 'part INTEGER, seq INTEGER, commit_us BIGINT, texts VARCHAR';

export class TextAppender {
  readonly #columns: readonly StoredColumn[];
  readonly #appender = new ChunkAppender([INTEGER, INTEGER, BIGINT, VARCHAR]);

  constructor(columns: readonly StoredColumn[]) {
    this.#columns = columns;
  }

  /** From now on rows go there: a table of `textColumns`. */
  into(connection: DuckDBConnection, table: string): Promise<void> {
    return this.#appender.into(connection, table);
  }

  add(row: ChangeRow, part: number, seq: number): void {
    const texts = JSON.stringify([
      row.op,
      row.position,
      row.unchanged && JSON.stringify(row.unchanged),
      row.previousKey && JSON.stringify(row.previousKey),
      beforeJson(this.#columns, row),
      row.exact,
      row.image,
      row.beforeImage,
      ...row.cells,
    ]);
    this.#appender.add([part, seq, row.commitTimeUs, texts]);
  }

  /** All rows are in the table. */
  end(): void {
    this.#appender.end();
  }
}

/** The columns of a data file, out of a row of text. */
export function castRow(columns: readonly StoredColumn[]): string {
  const text = (index: number) => `from_json(texts, '["VARCHAR"]')[${index}]`;
  const list = (index: number) => `from_json(${text(index)}, '["VARCHAR"]')`;
  return [
    `${text(1)} AS "_op"`,
    `${text(2)} AS "_position"`,
    'CAST(make_timestamp(commit_us) AS TIMESTAMPTZ) AS "_commit_time"',
    `${list(3)} AS "_unchanged"`,
    `${list(4)} AS "_previous_key"`,
    `${text(5)} AS "_before"`,
    `${text(6)} AS "_exact"`,
    `${text(7)} AS "_image"`,
    `${text(8)} AS "_before_image"`,
    ...columns.map(
      ({ field, storage }, index) =>
        `${castFromText(text(headLength + index + 1), storage)} AS ${quoteName(field)}`,
    ),
  ].join(',\n  ');
}
