/** Commands for a second terminal, each short enough to be read and copied. */
import { join, relative } from 'node:path';
import { findProgram } from '../../compose/program.ts';
import type { DemoEnvironment } from './environment.ts';

/** Of the demo, unless TIDEMARK_DEMO_DIR says otherwise. */
export const demoFolder = join('.tidemark', 'demo');

/** With psql and duckdb where the machine has them, else with what this checkout has. */
export function tryNext(
  { folder, configFile, destinations }: Pick<DemoEnvironment, 'folder' | 'configFile' | 'destinations'>,
  path = process.env.PATH ?? '',
): string[] {
  const local = (name: string) => quoted(inFolder(join(folder, name)));
  const usual = inFolder(folder) === demoFolder;
  const psql = (name: string) =>
    findProgram('psql', path)
      ? `psql "$(cat ${local(`${name}.url`)})" -c`
      : `npx node src/demo/query.ts ${usual ? name : local(`${name}.url`)}`;
  const lake = local('lake.sql');
  const duckdb = findProgram('duckdb', path) ? `duckdb -init ${lake} -c` : `npm run -s duckdb -- ${lake}`;
  const view = local('files/app.findings/_latest.sql');
  const has = (kind: string) => destinations.some((each) => each.kind === kind);
  const verify = destinations.filter((each) => each.verifiable).map(({ name }) => `verify ${name}`);
  return [
    `${psql('source')} "update app.findings set title='x'"`,
    ...(has('postgres') ? [`${psql('replica')} "select count(*) from app.events"`] : []),
    ...(has('iceberg') ? [`${duckdb} "from lake.app.findings limit 3"`] : []),
    ...(has('parquet') && findProgram('duckdb', path) ? [`duckdb -c ".read ${view}"`] : []),
    ...(has('parquet') ? [`npm run -s duckdb -- ${view}`] : []),
    ...(has('webhook') ? [`tail -n 1 ${local('siem.ndjson')}`] : []),
    ...[...verify, 'retain status', 'status'].map(
      (command) => `npx tidemark ${command} --config ${quoted(inFolder(configFile))}`,
    ),
  ];
}

/** As short as it can be from where the user stands. */
function inFolder(path: string): string {
  const short = relative(process.cwd(), path);
  return short.startsWith('..') ? path : short;
}

function quoted(path: string): string {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
}
