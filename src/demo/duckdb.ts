/**
 * `npm run duckdb -- <file.sql> ["query"]`: DuckDB with what this checkout has. Runs the file, then the query, and
 * prints its rows. Without a query it tells how many rows a lake's `_latest.sql` gives and how fresh they are.
 */
import { readFile } from 'node:fs/promises';
import { DuckDBInstance } from '@duckdb/node-api';

const freshness = 'select count(*) as rows, max(_commit_time) as newest_commit from tidemark_latest';

const [file, query = freshness] = process.argv.slice(2);
if (!file) {
  process.stderr.write('usage: npm run duckdb -- <file.sql> ["query"]\n');
  process.exit(2);
}
const connection = await (await DuckDBInstance.create(':memory:')).connect();
await connection.run(await readFile(file, 'utf8'));
const reader = await connection.runAndReadAll(query);
console.table(reader.getRowObjectsJson());
