/** What a report is made of: Tombstones, policies and overrides in the source database, as of one moment, a few at a time. */
import type { Client } from 'pg';
import { tableName } from '../../connector/shape.ts';
import { topicNames } from '../../publish/record-format.ts';
import type { KeySchemas } from '../delivery-proof.ts';
import { retentionError } from '../session.ts';
import { type EvidenceHead, type EvidenceReceipt, type EvidenceRow, evidenceFormat } from './format.ts';

export interface EvidenceRange {
  organization: string | null;
  from: Date;
  to: Date;
}

export interface EvidenceSource {
  sourceId: string;
  topicPrefix: string;
  registry: KeySchemas;
}

const rowsAtATime = 500;

const iso = (column: string) => `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;

const within = 'a.evicted_at >= $1 and a.evicted_at < $2 and ($3::text is null or a.tenant = $3)';
const archive = 'tidemark_retention.cold_storage_archive a';

function valuesOf({ organization, from, to }: EvidenceRange): unknown[] {
  return [from, to, organization];
}

/** One moment for all that is asked until it ends. */
export async function beginReading(client: Client): Promise<void> {
  await client.query('begin isolation level repeatable read read only');
}

/** @throws TidemarkError TM505, TM507, TM304 */
export async function evidenceHead(
  client: Client,
  range: EvidenceRange,
  { sourceId, topicPrefix, registry }: EvidenceSource,
): Promise<EvidenceHead> {
  const values = valuesOf(range);
  try {
    const { rows: used } = await client.query<{ schema: string; name: string; versions: number[] }>(
      `select a.table_schema as schema, a.table_name as name, array_agg(distinct a.policy_version order by a.policy_version) as versions
         from ${archive} where ${within} group by 1, 2 order by 1, 2`,
      values,
    );
    const { rows: policies } = await client.query<EvidenceHead['policies'][number]>(
      `select v.table_schema || '.' || v.table_name as "table", v.version, ${iso('v.changed_at')} as "changedAt",
              v.changed_by as "changedBy", v.policy
         from tidemark_retention.policy_versions v
         join (select distinct a.table_schema, a.table_name, a.policy_version as version from ${archive} where ${within}) used
           using (table_schema, table_name, version) order by 1, 2`,
      values,
    );
    const { rows: overrides } = await client.query<EvidenceHead['overrides'][number]>(
      `select o.id::text, o.name, o.table_schema || '.' || o.table_name as "table", o.tenant, o.reason,
              ${iso('o.granted_at')} as "grantedAt", o.granted_by as "grantedBy", ${iso('o.expires_at')} as "expiresAt"
         from tidemark_retention.overrides o
        where o.id in (select a.override_id from ${archive} where ${within}) order by o.granted_at, o.id`,
      values,
    );
    const { rows: own } = await client.query<{ who: string; now: string }>(
      `select session_user as who, ${iso('now()')} as now`,
    );
    const topics = topicNames(topicPrefix);
    const tables: EvidenceHead['tables'] = [];
    for (const { schema, name } of used) {
      const versions = await registry.versions(`${topics.table({ schema, name })}-value`);
      tables.push({ schema, name, schemaText: versions.at(-1)?.schema ?? null });
    }
    return {
      kind: 'head',
      format: evidenceFormat,
      canonicalForm: 'tidemark-row-v1',
      source: sourceId,
      organization: range.organization,
      from: range.from.toISOString(),
      to: range.to.toISOString(),
      madeAt: own[0]!.now,
      madeBy: own[0]!.who,
      tables,
      policies,
      overrides,
    };
  } catch (error) {
    throw retentionError(error);
  }
}

type FoundRow = Omit<EvidenceRow, 'kind' | 'deliveredTo'> & { deliveredTo: EvidenceReceipt[] };

/** In the order of when they went. @throws TidemarkError TM505, TM507 */
export async function* evidenceRows(client: Client, range: EvidenceRange): AsyncGenerator<EvidenceRow> {
  try {
    await client.query(
      `declare evidence no scroll cursor for
       select a.id::text, a.table_schema as schema, a.table_name as name, a.row_key as key, a.tenant,
              a.delivered_to as "deliveredTo", a.pinned_destination as pinned, a.position,
              encode(a.content_hash, 'hex') as hash, encode(a.salt, 'hex') as salt, a.hash_version as "hashVersion",
              a.hashed_columns as "hashedColumns", a.forfeited_columns as forfeited, ${iso('a.evicted_at')} as "evictedAt",
              a.evicted_by as "evictedBy", a.policy_version as "policyVersion", a.override_id::text as override,
              ${iso('a.recalled_at')} as "recalledAt", a.recalled_by as "recalledBy", a.recall_reason as "recallReason",
              exists (select from tidemark_retention.cold_storage_archive later where later.table_schema = a.table_schema
                and later.table_name = a.table_name and later.row_key = a.row_key and later.position > a.position) as superseded
         from ${archive} where ${within} order by a.evicted_at, a.id`,
      valuesOf(range),
    );
    for (;;) {
      const { rows } = await client.query<FoundRow>(`fetch ${rowsAtATime} from evidence`);
      for (const row of rows) yield { kind: 'row', ...row };
      if (rows.length < rowsAtATime) break;
    }
    await client.query('close evidence');
  } catch (error) {
    throw retentionError(error);
  }
}

export function nameOf(row: Pick<EvidenceRow, 'schema' | 'name'>): string {
  return tableName(row);
}
