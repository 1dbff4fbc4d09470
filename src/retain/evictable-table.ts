/** A table with a policy, as evicting it needs it, or the reason why nothing of it can go. */
import type { Client } from 'pg';
import { type TableId, tableName, unitName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { ResolvedConfig, RetainConfig } from '../platform/resolved-config.ts';
import { archiveTable } from '../platform/retention-archive.ts';
import { longestTopic, topicNames } from '../publish/record-format.ts';
import {
  type CatalogueTable,
  columnPolicy,
  hasIdentity,
  quoted,
  tenantColumnOf,
} from '../replicate/catalogue.ts';
import { describeTable } from '../replicate/snapshot/table-scan.ts';
import { type ForeignKey, foreignKeysTo } from './foreign-keys.ts';
import type { Policy } from './policies.ts';

export interface EvictableTable extends TableId {
  policy: Policy;
  /** Its Unit, where each table is one. */
  unit: string;
  topic: string;
  oid: number;
  partitioned: boolean;
  /** For FROM, with the alias `t`. */
  from: string;
  /** The key's columns in the order of the record key. */
  key: string[];
  /** Columns that destinations have, and that the content hash covers. */
  kept: string[];
  /** Withheld columns that the policy lets go of. */
  forfeited: string[];
  /** Null: it has no tenants, and the policy says how long its rows stay. */
  tenant: string | null;
  /** A timestamptz expression over `t`. */
  age: string;
  references: ForeignKey[];
}

/** Beside column names: what the age of a row is told by. */
const ageForms: readonly [RegExp, (column: string) => string][] = [
  [/^timestamp(\(\d\))? with time zone$/, (column) => column],
  [/^timestamp(\(\d\))? without time zone$/, (column) => `(${column} at time zone 'UTC')`],
  [/^date$/, (column) => `(${column}::timestamp at time zone 'UTC')`],
];

/**
 * @param tracked tables that the stream carries
 * @throws TidemarkError TM502, TM503 with what to do, TM505 with the grant that is missing
 */
export async function evictableTable(
  client: Client,
  config: ResolvedConfig,
  tracked: readonly CatalogueTable[],
  policy: Policy,
): Promise<EvictableTable> {
  const { source, kafka, retain } = config;
  const name = tableName(policy);
  const refuse = (reason: string, remedy: string) =>
    new TidemarkError('TM503', `${name} is not evicted: ${reason}`, { remedy });
  const table = tracked.find((each) => tableName(each) === name);
  if (!table)
    throw refuse('it is not among the tables of source.tables', 'Add it there, or delete its policy.');
  if (name === tableName(archiveTable)) throw refuse('it holds the Tombstones', 'Delete its policy.');
  if (!hasIdentity(table))
    throw refuse(
      'its deletes are not in the stream, for want of a replica identity',
      'Give it a primary key.',
    );
  const { key } = await describeTable(client, source, table, () => true);
  if (key.length === 0) throw refuse('its rows cannot be told apart', 'Give it a primary key.');
  const columns = table.columns.filter(({ generated }) => !generated);
  const policyOf = (column: string) =>
    columnPolicy(source, table, columns.find((each) => each.name === column)!);
  const hidden = key.find((column) => policyOf(column.name) !== 'keep');
  if (hidden)
    throw refuse(
      `its key column ${hidden.name} does not leave Postgres as it is`,
      `Keep ${hidden.name} (source.tables), or delete the policy.`,
    );
  const withheld = columns.map((column) => column.name).filter((column) => policyOf(column) !== 'keep');
  const lost = withheld.filter((column) => !policy.forfeitColumns.includes(column));
  if (lost.length > 0) {
    throw new TidemarkError(
      'TM502',
      `${name} is not evicted: no destination has ${lost.join(', ')} as it is`,
      {
        remedy: `Keep ${lost.length === 1 ? 'it' : 'them'} in source.tables; or, if nobody needs the values any more: update tidemark_retention.policies set forfeit_columns = forfeit_columns || '{${lost.join(',')}}' where (table_schema, table_name) = ('${policy.schema}', '${policy.name}');`,
      },
    );
  }
  const ageColumn = columns.find((column) => column.name === policy.ageColumn);
  const ageForm = ageForms.find(([type]) => ageColumn && type.test(ageColumn.type));
  if (!ageColumn || !ageForm)
    throw refuse(
      `its age_column ${policy.ageColumn} is no timestamp or date of it`,
      'Correct age_column in the policy.',
    );
  const tenant = tenantColumnOf(source, table);
  const hasTenant = tenant !== null && columns.some((column) => column.name === tenant);
  if (hasTenant && !retain!.tenants)
    throw refuse('how long rows of a tenant stay is not known', 'Set retain.tenants.table.');
  if (hasTenant) await requireOneRowEach(client, retain!, refuse);
  if (!hasTenant && policy.retentionDays === null)
    throw refuse('it has no tenant column', 'Set retention_days in its policy.');
  const topics = topicNames(kafka.topicPrefix);
  if (topics.evictions(table).length > longestTopic)
    throw refuse('the name of its control topic would be too long', 'Choose a shorter kafka.topic.prefix.');
  const references = await foreignKeysTo(client, table.oid);
  await requireRights(client, table, references, config);
  const from = table.kind === 'partitioned' ? quoted(table) : `only ${quoted(table)}`;
  return {
    schema: table.schema,
    name: table.name,
    policy,
    unit: unitName(table),
    topic: topics.table(table),
    oid: table.oid,
    partitioned: table.kind === 'partitioned',
    from: `${from} as t`,
    key: key.toSorted((left, right) => left.at - right.at).map((column) => column.name),
    kept: columns.map((column) => column.name).filter((column) => !withheld.includes(column)),
    forfeited: withheld,
    tenant: hasTenant ? tenant : null,
    age: ageForm[1](`t.${client.escapeIdentifier(ageColumn.name)}`),
    references,
  };
}

/** Two rows of one tenant would let the shorter days win. Of a view nobody can tell. */
async function requireOneRowEach(
  client: Client,
  { tenants }: RetainConfig,
  refuse: (reason: string, remedy: string) => TidemarkError,
): Promise<void> {
  const { table, key } = tenants!;
  const { rows } = await client.query<{ unique: boolean }>(
    `select c.relkind not in ('r', 'p') or exists (select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
         where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indnkeyatts = 1 and i.indpred is null and a.attname = $2) as unique
       from pg_class c where c.oid = to_regclass($1)`,
    [quoted(table), key],
  );
  if (rows[0] && !rows[0].unique)
    throw refuse(
      `${tableName(table)} may have several rows of one tenant`,
      `create unique index on ${quoted(table)} (${client.escapeIdentifier(key)});`,
    );
}

/** FOR UPDATE takes the right to update, of one column at least. @throws TidemarkError TM505 */
async function requireRights(
  client: Client,
  table: CatalogueTable,
  references: readonly ForeignKey[],
  { retain }: ResolvedConfig,
): Promise<void> {
  const wanted: [string, string][] = [
    [quoted(table), 'select, update, delete'],
    ...references.map(({ table: child }): [string, string] => [quoted(child), 'select']),
    ...(retain!.tenants ? [[quoted(retain!.tenants.table), 'select'] as [string, string]] : []),
  ];
  const missing: string[] = [];
  for (const [relation, rights] of wanted) {
    const { rows } = await client.query<{ missing: string | null }>(
      `select string_agg(r, ', ') as missing from unnest(string_to_array($2, ', ')) r
        where not case r when 'update' then has_any_column_privilege(to_regclass($1), r) else has_table_privilege(to_regclass($1), r) end`,
      [relation, rights],
    );
    if (rows[0]?.missing)
      missing.push(`grant ${rows[0].missing} on ${relation} to <the role of retain.url>;`);
  }
  if (missing.length === 0) return;
  throw new TidemarkError('TM505', `the role of retain.url lacks rights for ${tableName(table)}`, {
    remedy: missing.join(' '),
  });
}

/** What both must be true while a row goes: its delete, and its Tombstone, are in the stream. @throws TidemarkError TM503 */
export async function requirePublished(
  client: Client,
  publication: string,
  tables: readonly TableId[],
): Promise<void> {
  const { rows } = await client.query<{ name: string }>(
    `select p.schemaname || '.' || p.tablename as name from pg_publication_tables p join pg_publication o on o.pubname = p.pubname
      where p.pubname = $1 and o.pubinsert and o.pubupdate and o.pubdelete and o.pubviaroot`,
    [publication],
  );
  const published = new Set(rows.map(({ name }) => name));
  const missing = tables.find(({ schema, name }) => !published.has(`${schema}.${name}`));
  if (!missing) return;
  throw new TidemarkError(
    'TM503',
    `nothing is evicted: ${tableName(missing)} is not in publication ${publication}`,
    {
      remedy:
        'Its reader brings the publication in line: run `tidemark run --roles replicate` with retain.enabled in its configuration, and see `tidemark check`.',
    },
  );
}
