/** Rows that the destination lost again, because it was put back to before they came out of Quarantine. */
import type { PoolClient } from 'pg';
import type { Held } from '../../connector/sink.ts';
import type { UnitName } from '../ledger.ts';

/**
 * Entries that a later Window than the held one took along, or made unnecessary, wait once more: the stream goes on behind
 * their first Changes. Where the row was refused again since, they wait in that entry. Called before those Deliveries go.
 */
export async function quarantineAgain(
  client: PoolClient,
  { sourceId, destination, unit }: UnitName,
  { position, sequence }: Held,
): Promise<void> {
  const values = [sourceId, destination, unit, sequence, position];
  const gone = `(with later as (
      select replays, delivered_at from tidemark.deliveries where source_id = $1 and destination = $2 and unit = $3
         and sequence > $4 and state = 'delivered')
    select id, topic, key from tidemark.quarantine
     where source_id = $1 and destination = $2 and unit = $3 and position <= $5
       and (state = 'replayed' and id in (select unnest(replays) from later)
         or state = 'superseded' and changed_at >= (select min(delivered_at) from later)))`;
  const since = `tidemark.quarantine s where s.source_id = $1 and s.destination = $2 and s.unit = $3
     and s.topic = g.topic and s.key = g.key and s.state in ('held', 'replaying', 'dropped')`;
  await client.query(
    `insert into tidemark.quarantined_changes (quarantine_id, position, record_offset, bytes)
     select (select s.id from ${since}), c.position, c.record_offset, c.bytes
       from ${gone} g join tidemark.quarantined_changes c on c.quarantine_id = g.id
      where exists (select from ${since}) on conflict do nothing`,
    values,
  );
  await client.query(
    `update tidemark.quarantine q set state = 'held', changed_at = now()
       from ${gone} g where q.id = g.id and not exists (select from ${since})`,
    values,
  );
}
