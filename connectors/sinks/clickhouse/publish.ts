/** Puts a table that was made beside the visible one in its place: one exchange of names, which is the commit. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { tableName } from '../../../src/connector/shape.ts';
import { quoteText, viewName } from './names.ts';
import type { Generation, Unit, Visible } from './unit.ts';

/**
 * @param visible what it replaces
 * @throws TidemarkError TM403 for an owner that was replaced, TM405 where something else has the view's name
 */
export async function publish(
  unit: Unit,
  token: bigint,
  { rows, layout }: Generation,
  visible: Visible | null,
  beforeCommit: () => Promise<void>,
): Promise<string> {
  const { server, names, name } = unit;
  const candidate = names.view(token);
  const view = visible?.view ?? viewName(layout.shape);
  await server.run(
    `CREATE OR REPLACE VIEW ${server.table(candidate)} AS ${layout.view(server.table(rows))} COMMENT ${quoteText(`tidemark ${names.id} ${rows}`)}`,
    name,
  );
  await unit.checkToken(token);
  await beforeCommit();
  const [from, to] = [server.table(candidate), server.table(view)];
  const there = await server.runIfThere(
    visible ? `EXCHANGE TABLES ${from} AND ${to}` : `RENAME TABLE ${from} TO ${to}`,
    name,
  );
  if (!there) {
    await unit.checkToken(token);
    throw new TidemarkError('TM404', `${name}: the view ${view} is gone`);
  }
  return view;
}

/** @throws TidemarkError TM405 where the view's name is taken already */
export async function refuseForeign(unit: Unit, name: string, layout: Generation['layout']): Promise<void> {
  const { server } = unit;
  const found = await server.select(
    `SELECT comment FROM system.tables WHERE database = ${quoteText(server.database)} AND name = ${quoteText(name)}`,
    unit.name,
  );
  if (found.length === 0) return;
  const other = found[0]![0]!.startsWith('tidemark ')
    ? 'belongs to another destination'
    : 'was not made by Tidemark';
  throw new TidemarkError('TM405', `${tableName(layout.shape)}: ${server.table(name)} exists and ${other}`, {
    remedy: `Give this destination a database of its own, or RENAME TABLE ${server.table(name)} TO another name.`,
  });
}
