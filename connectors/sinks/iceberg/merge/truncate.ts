import { columnName } from '../plan/read-columns.ts';
import type { MergeSpace } from './merge-space.ts';

/** Nothing stays but rows that the source let go of. */
export async function truncate(space: MergeSpace): Promise<void> {
  const retired = columnName(space.layout.house.retired);
  await space.connection.run(`DELETE FROM ${space.added} WHERE ${retired} IS NOT TRUE`);
  if (space.mayHaveRetired) await space.adopt(`${retired} IS TRUE`);
  else await space.empty();
}
