/** That the service's session is where the reader reads: what it deletes, or writes, elsewhere is in no stream. */
import type { Client } from 'pg';
import { TidemarkError } from '../platform/errors.ts';
import type { SourceRow } from '../publish/source-ledger.ts';

/**
 * An LSN says nothing in another cluster; and another database of this one, a copy of the source even, has the same LSNs.
 * @throws TidemarkError TM205
 */
export async function requireSource(
  client: Client,
  { systemIdentifier, slot }: Pick<SourceRow, 'systemIdentifier' | 'slot'>,
): Promise<void> {
  const { rows } = await client.query<{ id: string; standby: boolean; elsewhere: string | null }>(
    `select system_identifier::text as id, pg_is_in_recovery() as standby,
            (select database::text from pg_replication_slots where slot_name = $1 and database <> current_database()) as elsewhere
       from pg_control_system()`,
    [slot],
  );
  const { id, standby, elsewhere } = rows[0]!;
  const refuse = (what: string, remedy: string) =>
    new TidemarkError('TM205', `retain.url leads to ${what}`, { remedy });
  if (id !== systemIdentifier)
    throw refuse('another cluster than the reader reads', 'Point retain.url at the source.');
  if (elsewhere !== null)
    throw refuse(
      `another database than ${elsewhere}, which the reader reads`,
      'Point retain.url at the source.',
    );
  if (standby) throw refuse('a standby', 'Point retain.url at the primary: rows are deleted there.');
}
