/**
 * `npx node src/demo/query.ts source|replica "query"`: SQL on the running demo's databases, for machines without psql.
 * A path instead of the name is that of a file with a Postgres URL.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { demoFolder } from './try-next.ts';
import { withClient } from './with-client.ts';

const [place, query] = process.argv.slice(2);
if (!place || !query) {
  process.stderr.write('usage: npx node src/demo/query.ts source|replica "query"\n');
  process.exit(2);
}
const folder = process.env.TIDEMARK_DEMO_DIR ?? demoFolder;
const file = place.includes('/') ? place : join(folder, `${place}.url`);
const { rows, rowCount, command } = await withClient((await readFile(file, 'utf8')).trim(), (client) =>
  client.query(query),
);
if (rows.length > 0) console.table(rows);
process.stdout.write(`${command} ${rowCount ?? 0}\n`);
