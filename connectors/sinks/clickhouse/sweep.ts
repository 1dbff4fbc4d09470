/**
 * Rows that a snapshot of the whole table did not see: those whose version is no later than its start. Each gets a
 * deleted row of just that version and nothing later, so a row that the Window itself brought later stays.
 */
import { tableName } from '../../../src/connector/shape.ts';
import type { Sweep } from '../../../src/connector/sink.ts';
import type { MergeRun } from './merge-run.ts';
import { versionOf } from './version.ts';

/** @returns rows removed */
export async function sweepTable(run: MergeRun, sweep: Sweep): Promise<number> {
  const { unit, stage } = run;
  const { server } = unit;
  const { layout, rows } = run.target;
  await stage.flush();
  const keys = layout.sort.map(({ name }) => name);
  // As text: a literal beyond 64 bits would be a floating number.
  const since = `toUInt128('${versionOf(sweep.since)}')`;
  const [held, staged] = [server.table(rows), server.table(stage.table)];
  const old = `_kind = 0 AND _retired = 0 AND _version <= ${since}`;
  // The stage's row of a key is the newer one, whatever the table has.
  const unseen = `SELECT ${keys.join(', ')} FROM ${held} FINAL WHERE ${old} AND ${layout.sortTuple()} NOT IN (SELECT ${keys.join(', ')} FROM ${staged} WHERE _kind = 0)
UNION ALL SELECT ${keys.join(', ')} FROM ${staged} FINAL WHERE ${old}`;
  const found = await server.select(`SELECT count() FROM (${unseen})`, unit.name);
  const removed = Number(found[0]![0]);
  if (removed > 0) {
    await stage.insertSelect(
      ['_kind', ...keys, '_version', '_deleted'],
      `SELECT 0, ${keys.join(', ')}, ${since}, 1 FROM (${unseen})`,
    );
    run.context.log('info', 'removed rows that are not in the source, as a snapshot has shown', {
      table: tableName(layout.shape),
      rows: removed,
    });
  }
  return removed;
}
