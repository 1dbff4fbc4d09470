/**
 * `npm run duckdb -- <file.sql> ["query"]`: DuckDB with what this checkout has. Runs the file, then the query, and
 * prints its rows.
 */
import { readFile } from 'node:fs/promises';
import { DuckDBInstance } from '@duckdb/node-api';

const [file, query = 'select * from tidemark_latest limit 10'] = process.argv.slice(2);
if (!file) {
  process.stderr.write('usage: npm run duckdb -- <file.sql> ["query"]\n');
  process.exit(2);
}
const connection = await (await DuckDBInstance.create(':memory:')).connect();
await connection.run(await readFile(file, 'utf8'));
const reader = await connection.runAndReadAll(query);
console.table(reader.getRowObjectsJson());
