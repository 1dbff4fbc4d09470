/** How old a row is, the source's clock says; whether that clock is right, only another one can. */
import type { Client } from 'pg';
import { TidemarkError } from '../platform/errors.ts';

const mostApartMs = 3_600_000;

/** Two clocks that are wrong alike are not noticed. @throws TidemarkError TM512 */
export async function requireClock(client: Client): Promise<void> {
  const { rows } = await client.query<{ ms: number }>(
    'select (extract(epoch from clock_timestamp()) * 1000)::float8 as ms',
  );
  const apartMs = rows[0]!.ms - Date.now();
  if (Math.abs(apartMs) <= mostApartMs) return;
  const hours = (Math.abs(apartMs) / 3_600_000).toFixed(1);
  throw new TidemarkError(
    'TM512',
    `the clock of the source is ${hours} h ${apartMs > 0 ? 'ahead of' : 'behind'} that of the retention service: nothing is evicted`,
  );
}
