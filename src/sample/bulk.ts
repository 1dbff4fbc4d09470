/** Many findings fast, made on the server: for benchmarks and for the transaction of a million rows. */
import type { ClientBase } from 'pg';
import { TidemarkError } from '../platform/errors.ts';

export interface BulkOptions {
  rows: number;
  /** Rows of one seed have the same keys: another seed for every call on one database. */
  seed: number | string;
  /** One transaction for all rows, or (the default) one per 50,000. */
  inOneTransaction?: boolean;
}

const rowsPerStatement = 50_000;

/**
 * Inserts findings without evidence, evenly over all organizations, at about 312 bytes of pgoutput (binary, protocol
 * version 1) each, and returns how many. Must be called outside a transaction.
 *
 * Throws TM101 when there is no organization; passes on what Postgres reports, after rolling back.
 */
export async function bulkFindings(client: ClientBase, options: BulkOptions): Promise<number> {
  const found = await client.query<{ id: string }>(
    'SELECT id FROM app.organizations ORDER BY created_at, id',
  );
  if (found.rows.length === 0) {
    throw new TidemarkError('TM101', 'the sample database has no organization', {
      remedy: 'Call migrateSample and seedSample first.',
    });
  }
  const organizations = found.rows.map((row) => row.id);
  if (options.inOneTransaction) await client.query('BEGIN');
  try {
    for (let from = 1; from <= options.rows; from += rowsPerStatement) {
      const to = Math.min(options.rows, from + rowsPerStatement - 1);
      await client.query(insertBulk, [from, to, String(options.seed), organizations]);
    }
    if (options.inOneTransaction) await client.query('COMMIT');
  } catch (error) {
    if (options.inOneTransaction) await client.query('ROLLBACK');
    throw error;
  }
  return options.rows;
}

/** Every value follows from the seed and the row's number. */
const insertBulk = `
  INSERT INTO app.findings
    (organization_id, id, rule_id, title, severity, risk_score, exposure, detail, first_seen_at, last_seen_at,
     created_at, updated_at)
  SELECT ($4::uuid[])[1 + n % cardinality($4::uuid[])],
         md5($3::text || '/' || n)::uuid,
         'bulk.generated',
         'Generated finding, for measuring throughput and volume, number ' || n,
         'low',
         (n % 10000) / 100.0,
         n * 1.0001,
         jsonb_build_object('number', n, 'tags', jsonb_build_array('bulk', 'sample')),
         timestamptz '2026-01-05 08:00+00' + n * interval '1 millisecond',
         timestamptz '2026-01-05 08:00+00' + n * interval '1 millisecond',
         timestamptz '2026-01-05 08:00+00' + n * interval '1 microsecond',
         timestamptz '2026-01-05 08:00+00' + n * interval '1 microsecond'
  FROM generate_series($1::bigint, $2::bigint) AS n`;
