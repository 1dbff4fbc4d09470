/** What `check` says of the source: settings, rights, the slot, and every table. */
import pg from 'pg';
import { formatLsn } from '../connector/position.ts';
import { tableName } from '../connector/shape.ts';
import type { CheckFinding } from '../connector/sink.ts';
import { isMask } from '../platform/column-policy.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { SourceConfig } from '../platform/resolved-config.ts';
import {
  type CatalogueTable,
  columnPolicy,
  hasIdentity,
  quoted,
  ruleFor,
  tenantColumnOf,
  trackedTables,
} from './catalogue.ts';
import { comparePublications, planPublications } from './publication.ts';
import { connectSource, readSlot, sourceError } from './source.ts';
import { withheldColumns, withheldText } from './withheld-columns.ts';

/** Everything that could keep replication from working, with the statement that mends it. */
export async function checkSource(source: SourceConfig): Promise<CheckFinding[]> {
  const findings: CheckFinding[] = [];
  const ok = (what: string) => findings.push({ level: 'ok', what, remedy: null });
  const role = pg.escapeIdentifier(source.endpoint.user);
  const client = await connectSource(source, 'tidemark/check');
  try {
    await client.query(`set search_path = ''`);
    const settings = await readSettings(client);
    ok(`source answers: Postgres ${settings.server_version}`);
    const version = Number(settings.server_version_num);
    if (version < 140000) {
      findings.push({
        level: 'error',
        what: `Postgres ${settings.server_version} is too old`,
        remedy: 'Upgrade to Postgres 14 or newer.',
      });
    }
    if (settings.wal_level === 'logical') ok('wal_level is logical');
    else {
      findings.push({
        level: 'error',
        what: `wal_level is ${settings.wal_level}`,
        remedy: 'alter system set wal_level = logical; -- then restart Postgres',
      });
    }
    if (settings.server_encoding !== 'UTF8') {
      findings.push({
        level: 'error',
        what: `the database is encoded in ${settings.server_encoding}`,
        remedy: 'Tidemark copies text as UTF8: move the data to a UTF8 database.',
      });
    }
    const timeout = Number(settings.wal_sender_timeout);
    if (timeout > 0 && timeout < source.statusIntervalMs * 3) {
      findings.push({
        level: 'error',
        what: `wal_sender_timeout is ${timeout} ms, source.status.interval ${source.statusIntervalMs} ms`,
        remedy: `Set source.status.interval to ${Math.floor(timeout / 3)}ms or less, or: alter system set wal_sender_timeout = '60s'; select pg_reload_conf();`,
      });
    }
    await checkRole(client, role, findings);
    await checkSlots(client, source, settings, findings);
    findings.push(...(await checkFailover(client, source, settings)));
    const tables = await trackedTables(client, source);
    for (const table of tables) findings.push(...(await checkTable(client, source, table)));
    findings.push(...(await checkChildren(client, tables)), ...(await checkOtherRelations(client, source)));
    const plans = planPublications(source, tables, version);
    for (const plan of plans) {
      for (const { table, droppedByReader } of plan.tables) {
        if (droppedByReader.length === 0 || source.publicationColumnLists === false) continue;
        findings.push({
          level: 'warn',
          what: `${tableName(table)}: Postgres sends ${droppedByReader.join(', ')} all the same (no column list fits this replica identity); the reader drops them`,
          remedy: `alter table ${quoted(table)} replica identity default; -- with a primary key, so that a column list can leave them out`,
        });
      }
    }
    for (const line of withheldText(withheldColumns(source, plans))) ok(line);
    const differences = await comparePublications(client, plans, version);
    for (const { what, statement, plan } of differences) {
      const mayChange = plan.tables.every(({ table }) => table.owned);
      findings.push({
        level: mayChange ? 'warn' : 'error',
        what: `${what}${mayChange ? ' (run makes it so)' : ', and this role may not change it'}`,
        remedy: statement,
      });
    }
    if (differences.length === 0)
      ok(`publications ${plans.map((plan) => plan.name).join(' and ')} are as configured`);
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw sourceError(error);
    findings.push({ level: 'error', what: `${error.code}: ${error.message}`, remedy: error.remedy });
  } finally {
    await client.end().catch(() => {});
  }
  return findings;
}

async function readSettings(client: pg.ClientBase): Promise<Record<string, string>> {
  const { rows } = await client.query(`select name, setting from pg_settings where name = any ($1)`, [
    [
      'server_version',
      'server_version_num',
      'wal_level',
      'wal_sender_timeout',
      'max_replication_slots',
      'max_wal_senders',
      'server_encoding',
      'max_slot_wal_keep_size',
      'synchronized_standby_slots',
    ],
  ]);
  return Object.fromEntries(rows.map((row) => [row.name, row.setting]));
}

async function checkRole(client: pg.ClientBase, role: string, findings: CheckFinding[]): Promise<void> {
  const { rows } = await client.query(
    `select rolreplication or rolsuper as replication, has_database_privilege(current_database(), 'CREATE') as creates,
            current_database() as database from pg_roles where rolname = current_user`,
  );
  const { replication, creates, database } = rows[0];
  if (replication) findings.push({ level: 'ok', what: 'the role may replicate', remedy: null });
  else
    findings.push({
      level: 'error',
      what: `role ${role} lacks REPLICATION`,
      remedy: `alter role ${role} replication;`,
    });
  if (!creates) {
    findings.push({
      level: 'warn',
      what: `role ${role} may not create publications in ${database}`,
      remedy: `grant create on database ${pg.escapeIdentifier(database)} to ${role}; -- or create them as the owner of the tables`,
    });
  }
}

async function checkSlots(
  client: pg.ClientBase,
  source: SourceConfig,
  settings: Record<string, string>,
  findings: CheckFinding[],
): Promise<void> {
  const slot = await readSlot(client, source.slot);
  if (slot) {
    if (slot.plugin !== 'pgoutput') {
      findings.push({
        level: 'error',
        what: `slot ${slot.name} uses ${slot.plugin}`,
        remedy: `Choose another source.slot, or: select pg_drop_replication_slot('${slot.name}');`,
      });
    } else if (slot.walStatus === 'lost') {
      findings.push({
        level: 'error',
        what: `slot ${slot.name} lost its WAL`,
        remedy: 'tidemark teardown, then run; destinations must be rebuilt',
      });
    } else
      findings.push({
        level: 'ok',
        what: `slot ${slot.name} stands at ${formatLsn(slot.confirmedLsn)} (${slot.walStatus})`,
        remedy: null,
      });
    return;
  }
  const { rows } = await client.query(`select count(*)::int as used from pg_replication_slots`);
  if (rows[0].used >= Number(settings.max_replication_slots)) {
    findings.push({
      level: 'error',
      what: 'all replication slots are taken',
      remedy: `alter system set max_replication_slots = ${rows[0].used + 4}; -- then restart Postgres`,
    });
  } else
    findings.push({
      level: 'ok',
      what: `slot ${source.slot} does not exist yet; run creates it`,
      remedy: null,
    });
}

/** What becomes of the slot when a standby takes over. Nothing to say where there is neither slot nor standby. */
async function checkFailover(
  client: pg.ClientBase,
  source: SourceConfig,
  settings: Record<string, string>,
): Promise<CheckFinding[]> {
  const slot = await readSlot(client, source.slot);
  const { rows } = await client.query(
    `select count(*)::int as standbys from pg_replication_slots where slot_type = 'physical'`,
  );
  const hasStandby = rows[0].standbys > 0;
  if (!slot && !hasStandby) return [];
  if (Number(settings.server_version_num) < 170000) {
    if (!hasStandby) return [];
    return [
      {
        level: 'warn',
        what: 'slots do not survive a failover before Postgres 17: after a promotion the stream starts anew (TM204)',
        remedy: 'Upgrade to Postgres 17 or later.',
      },
    ];
  }
  const findings: CheckFinding[] = [];
  if (slot && !slot.failover && source.slotFailover) {
    findings.push({
      level: 'warn',
      what: `slot ${slot.name} is not kept on standbys: after a promotion it is gone (TM204)`,
      remedy: `With the reader stopped, on a replication connection (psql "… replication=database"): ALTER_REPLICATION_SLOT ${slot.name} (FAILOVER true)`,
    });
  } else if (slot?.failover) {
    const what = `slot ${slot.name} is a failover slot: a standby with sync_replication_slots keeps it over a failover`;
    findings.push({ level: 'ok', what, remedy: null });
  }
  if (hasStandby && source.slotFailover && !settings.synchronized_standby_slots) {
    findings.push({
      level: 'warn',
      what: 'synchronized_standby_slots is empty: Kafka may have changes that a promoted standby lacks (TM241)',
      remedy:
        "alter system set synchronized_standby_slots = '<the physical slots of the standbys that may be promoted>'; select pg_reload_conf();",
    });
  }
  return findings;
}

async function checkTable(
  client: pg.ClientBase,
  source: SourceConfig,
  table: CatalogueTable,
): Promise<CheckFinding[]> {
  const name = tableName(table);
  const findings: CheckFinding[] = [];
  const { rows } = await client.query(
    `select has_schema_privilege($1, 'USAGE') as usage, has_table_privilege($2::oid, 'SELECT') as reads`,
    [table.schema, table.oid],
  );
  const role = pg.escapeIdentifier(source.endpoint.user);
  if (!rows[0].usage)
    findings.push({
      level: 'error',
      what: `no USAGE on schema ${table.schema}`,
      remedy: `grant usage on schema ${pg.escapeIdentifier(table.schema)} to ${role};`,
    });
  if (!rows[0].reads)
    findings.push({
      level: 'error',
      what: `no SELECT on ${name} (verify and snapshots read it)`,
      remedy: `grant select on ${quoted(table)} to ${role};`,
    });
  if (!hasIdentity(table)) {
    findings.push({
      level: 'warn',
      what: `${name} has no usable replica identity: only inserts and truncates are replicated, updates and deletes are not`,
      remedy: `alter table ${quoted(table)} add primary key (…); -- or: alter table ${quoted(table)} replica identity full;`,
    });
  }
  for (const column of table.columns) {
    const policy = columnPolicy(source, table, column);
    if (!column.identity || !(policy === 'drop' || isMask(policy))) continue;
    findings.push({
      level: 'error',
      what: `${name}: key column ${column.name} has the policy ${policy}, but rows cannot be told apart without it: the table would be parked`,
      remedy: `Say in tidemark.yaml that ${column.name} is kept or hashed, or give the table another replica identity.`,
    });
  }
  const tenant = tenantColumnOf(source, table);
  const tenantColumn = table.columns.find((column) => column.name === tenant);
  if (
    tenant &&
    tenantColumn &&
    !tenantColumn.identity &&
    table.replicaIdentity !== 'full' &&
    hasIdentity(table)
  ) {
    findings.push({
      level: 'warn',
      what: `${name}: tenant column ${tenant} is not in the replica identity: the table is partitioned by key, and destinations bound to a tenant cannot have it`,
      remedy: `Put ${tenant} into the primary key, or: alter table ${quoted(table)} replica identity full;`,
    });
  }
  const atRisk = table.columns
    .filter((column) => columnPolicy(source, table, column) === 'hash' && mayBeToasted(column.type))
    .map((column) => column.name);
  if (tenantColumn?.identity && table.replicaIdentity !== 'full' && atRisk.length > 0) {
    findings.push({
      level: 'warn',
      what: `${name}: hashes of ${atRisk.join(', ')} are salted with the tenant; a row that changes its tenant and leaves them untouched in TOAST parks the table (TM208)`,
      remedy: `Where rows change their tenant: alter table ${quoted(table)} replica identity full;`,
    });
  }
  const slot = await readSlot(client, source.slot);
  if (!slot && rows[0].usage && rows[0].reads) {
    const { rows: filled } = await client.query(`select exists (select 1 from ${quoted(table)}) as filled`);
    const mode = ruleFor(source.tables, table)?.snapshotMode ?? source.snapshot.mode;
    if (filled[0].filled && mode === 'never') {
      findings.push({
        level: 'warn',
        what: `${name} already holds rows: changes from now on are replicated, rows from before the slot are not (its snapshot.mode is never)`,
        remedy: `tidemark snapshot start ${name}, once the reader runs; or load the destinations from a dump taken when the slot is created.`,
      });
    }
  }
  if (findings.length === 0) findings.push({ level: 'ok', what: `${name} can be tracked`, remedy: null });
  return findings;
}

/** Tables that inherit from a tracked one are tables of their own, here as in the stream. */
async function checkChildren(
  client: pg.ClientBase,
  tables: readonly CatalogueTable[],
): Promise<CheckFinding[]> {
  const { rows } = await client.query<{ parent: number; oid: number; name: string }>(
    `select i.inhparent::int8::float8 as parent, c.oid::int8::float8 as oid, c.oid::regclass::text as name
       from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = any ($1::oid[]) and not c.relispartition order by 3`,
    [tables.map(({ oid }) => oid)],
  );
  return tables.flatMap((table) => {
    const children = rows.filter(({ parent }) => parent === Number(table.oid));
    if (children.length === 0) return [];
    const tracked = new Set(tables.map(({ oid }) => Number(oid)));
    const untracked = children.filter(({ oid }) => !tracked.has(oid)).map(({ name }) => name);
    const what = `${tableName(table)} has children by inheritance (${children.map(({ name }) => name).join(', ')}): each is a table of its own, and ${tableName(table)} stands for its own rows alone`;
    const remedy =
      untracked.length > 0
        ? `To replicate their rows too, add to source.tables: ${untracked.join(', ')}`
        : null;
    return [{ level: untracked.length > 0 ? ('warn' as const) : ('ok' as const), what, remedy }];
  });
}

/** What a pattern selects by its schema and what is not replicated. Views hold no rows of their own. */
async function checkOtherRelations(client: pg.ClientBase, source: SourceConfig): Promise<CheckFinding[]> {
  const { rows } = await client.query<{ schema: string; name: string; kind: string }>(
    `select n.nspname as schema, c.relname as name,
            case c.relkind when 'm' then 'a materialized view' else 'a foreign table' end as kind
       from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind in ('m', 'f') and not c.relispartition order by 1, 2`,
  );
  return rows
    .filter((row) => ruleFor(source.tables, row) !== null)
    .map((row) => ({
      level: 'warn' as const,
      what: `${tableName(row)} is ${row.kind}: it is not replicated`,
      remedy: 'Replicate the tables that its rows come from.',
    }));
}

/** Types of variable length, domains and enums aside. */
function mayBeToasted(type: string): boolean {
  return /^(text|character|bpchar|json|bytea|xml|numeric)|\[\]$/.test(type);
}
