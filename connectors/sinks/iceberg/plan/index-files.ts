/** Data files into the key index. */
import type { DuckDBConnection } from '@duckdb/node-api';
import { hashedRows } from './hash-stream.ts';
import { type KeyColumn, keyHash, sortedWords } from './key-hash.ts';
import type { KeyIndex } from './key-index.ts';
import { entryWords, hashWords } from './key-run-format.ts';
import type { KeyRunWriter } from './key-run-writer.ts';
import { columnName } from './read-columns.ts';

export interface IndexedFile {
  path: string;
  records: number;
  /** SQL of its key columns, and the one with what they cannot hold, and `pos` (read-columns.ts). */
  select: string;
}

/** What DuckDB sorts at once, and the files that it reads for it. */
const rowsAtOnce = 4_000_000;
const filesAtOnce = 64;

export async function indexFiles(
  connection: DuckDBConnection,
  index: KeyIndex,
  files: readonly IndexedFile[],
  columns: readonly KeyColumn[],
  keep: (path: string) => boolean,
): Promise<void> {
  const hash = keyHash(columns, columnName, index.salt);
  for (const batch of batches(files)) {
    await index.add(
      batch.map(({ path }) => path),
      async (writer, first) => {
        const parts = batch.map(
          ({ select }, number) => `SELECT ${hash} AS hash, ${first + number} AS number, pos FROM (${select})`,
        );
        await write(
          connection,
          sortedWords(parts.join(' UNION ALL '), 'number, CAST(pos AS DOUBLE)'),
          writer,
        );
      },
      keep,
    );
  }
}

async function write(connection: DuckDBConnection, query: string, writer: KeyRunWriter): Promise<void> {
  const entry = new Uint32Array(entryWords);
  for await (const { rows, words, columns } of hashedRows(connection, query)) {
    const [numbers, positions] = columns;
    for (let row = 0; row < rows; row += 1) {
      for (let word = 0; word < hashWords; word += 1) entry[word] = words[row * hashWords + word]!;
      entry[hashWords] = numbers!.getItem(row) as number;
      entry[hashWords + 1] = positions!.getItem(row) as number;
      if (writer.add(entry, 0)) await writer.flush();
    }
  }
}

function batches(files: readonly IndexedFile[]): IndexedFile[][] {
  const all: IndexedFile[][] = [];
  let rows = Number.POSITIVE_INFINITY;
  for (const file of files) {
    if (rows + file.records > rowsAtOnce || all.at(-1)!.length === filesAtOnce) {
      all.push([]);
      rows = 0;
    }
    all.at(-1)!.push(file);
    rows += file.records;
  }
  return all;
}
