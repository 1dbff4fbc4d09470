/**
 * DuckDB's Parquet writer sets a dictionary aside for every text column before it has seen a value, 1 MiB each: of 1,000
 * columns that is all its memory. @returns an option of COPY … (FORMAT parquet)
 */
export function dictionaryLimit(columns: number, memoryBytes: number): string {
  const bytes = Math.floor(memoryBytes / 16 / Math.max(1, columns));
  return `STRING_DICTIONARY_PAGE_SIZE_LIMIT ${Math.min(1024 * 1024, Math.max(16 * 1024, bytes))}`;
}
