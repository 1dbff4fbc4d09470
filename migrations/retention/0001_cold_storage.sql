-- What the retention service keeps in the source database: Tombstones, policies, legal holds and overrides. Applied by
-- `tidemark retain setup` as a role that may create schemas; the service itself runs as a member of tidemark_retention.

do $$
begin
  if not exists (select from pg_roles where rolname = 'tidemark_retention') then
    create role tidemark_retention nologin;
  end if;
end $$;

revoke all on schema tidemark_retention from public;
grant usage on schema tidemark_retention to tidemark_retention;

-- One Tombstone per evicted row, in the transaction that deletes the row, before the delete: what the reader goes by.
-- Partitioned by month (UTC): kept for the audit window, then detached a month at a time.
create table tidemark_retention.cold_storage_archive (
  id                 uuid not null default gen_random_uuid(),
  evicted_at         timestamptz not null default now(),
  table_schema       text not null,
  table_name         text not null,
  -- JSON array of the key columns' texts, in the order of the record key (docs/retention.md).
  row_key            text not null,
  tenant             text,
  -- Position up to which every destination below held the table when the row was let go.
  position           text not null,
  -- [{destination, unit, mark, receipt: {sequence, position, commitId, contentHash} | null}]
  delivered_to       jsonb not null,
  -- Under `any`: the destination whose copy is relied upon from now on.
  pinned_destination text,
  -- SHA-256 over the salt and the canonical form of the row; the version is of that form.
  content_hash       bytea not null check (octet_length(content_hash) = 32),
  hash_version       smallint not null,
  -- Columns that the hash covers.
  hashed_columns     text[] not null,
  -- Erasing it erases the link between the hash and whatever row it was of. Never published.
  salt               bytea check (octet_length(salt) = 32),
  salt_erased_at     timestamptz,
  -- Columns that no destination has, and that the policy lets go of.
  forfeited_columns  text[] not null default '{}',
  policy_version     integer not null,
  -- The override by which the row went without proof; null: on proof of delivery.
  override_id        uuid,
  evicted_by         text not null default session_user,
  -- Set in the transaction that brings the row back, before its insert.
  recalled_at        timestamptz,
  recalled_by        text,
  recall_reason      text,
  primary key (evicted_at, id),
  check ((recalled_at is null) = (recalled_by is null)),
  check (salt is null or salt_erased_at is null)
) partition by range (evicted_at);

-- The reader takes them from the WAL as they are, of an update too.
alter table tidemark_retention.cold_storage_archive
  alter column row_key set storage plain, alter column table_schema set storage plain,
  alter column table_name set storage plain;

create index cold_storage_archive_row on tidemark_retention.cold_storage_archive (table_schema, table_name, row_key);
create index cold_storage_archive_tenant on tidemark_retention.cold_storage_archive (tenant, evicted_at);

create function tidemark_retention.ensure_archive_partitions(months integer default 2) returns void
language plpgsql security definer set search_path = '' set timezone = 'UTC' as $$
declare
  first timestamptz;
  name text;
begin
  for i in 0 .. greatest(least(months, 24), 1) - 1 loop
    first := pg_catalog.date_trunc('month', pg_catalog.now()) + pg_catalog.make_interval(months => i);
    name := 'cold_storage_archive_' || pg_catalog.to_char(first, 'YYYY_MM');
    if pg_catalog.to_regclass('tidemark_retention.' || name) is null then
      perform pg_catalog.pg_advisory_xact_lock(72410003);
      execute pg_catalog.format(
        'create table if not exists tidemark_retention.%I partition of tidemark_retention.cold_storage_archive for values from (%L) to (%L)',
        name, first, first + interval '1 month');
    end if;
  end loop;
end $$;
revoke all on function tidemark_retention.ensure_archive_partitions(integer) from public;
grant execute on function tidemark_retention.ensure_archive_partitions(integer) to tidemark_retention;
select tidemark_retention.ensure_archive_partitions();

-- A Tombstone never changes, but for the erasure of its salt and for its recall, each once.
create function tidemark_retention.keep_tombstone() returns trigger
language plpgsql set search_path = '' as $$
begin
  if tg_op = 'DELETE' then
    raise exception 'a Tombstone is not deleted: detach the partition of its month when the audit window has passed' using errcode = 'insufficient_privilege';
  end if;
  if (pg_catalog.to_jsonb(new) - array['salt', 'salt_erased_at', 'recalled_at', 'recalled_by', 'recall_reason'])
     is distinct from (pg_catalog.to_jsonb(old) - array['salt', 'salt_erased_at', 'recalled_at', 'recalled_by', 'recall_reason'])
     or (new.salt is not null and new.salt is distinct from old.salt)
     or (old.salt_erased_at is not null and new.salt_erased_at is distinct from old.salt_erased_at)
     or (old.recalled_at is not null and (new.recalled_at, new.recalled_by) is distinct from (old.recalled_at, old.recalled_by)) then
    raise exception 'a Tombstone only loses its salt and gets its recall, each once' using errcode = 'insufficient_privilege';
  end if;
  return new;
end $$;
create trigger keep_tombstone before update or delete on tidemark_retention.cold_storage_archive
  for each row execute function tidemark_retention.keep_tombstone();

revoke all on tidemark_retention.cold_storage_archive from public;
grant select, insert on tidemark_retention.cold_storage_archive to tidemark_retention;
grant update (salt, salt_erased_at, recalled_at, recalled_by, recall_reason)
  on tidemark_retention.cold_storage_archive to tidemark_retention;

-- What may be evicted, per table. A table without a row here is never touched.
create table tidemark_retention.policies (
  table_schema          text not null,
  table_name            text not null,
  enabled               boolean not null default false,
  -- timestamptz, timestamp (UTC) or date: a row is as old as it says; NULL is never old enough.
  age_column            text not null,
  -- any: one destination that holds the row, which the Tombstone pins; all: every one that takes the table and the
  -- row's tenant; named: each of `destinations`.
  required              text not null default 'all' check (required in ('any', 'all', 'named')),
  destinations          text[] not null default '{}',
  -- Whether rows are read back from the destinations that prove them before they go: each time a pass over their table.
  read_back             text not null default 'none' check (read_back in ('none', 'sample', 'full')),
  -- For tables without a tenant column alone; null: never.
  retention_days        integer check (retention_days > 0),
  batch_rows            integer not null default 500 check (batch_rows between 1 and 10000),
  -- Rows a second, at most, over the length of a run.
  rows_per_second       integer not null default 1000 check (rows_per_second between 1 and 1000000),
  -- Times of day, UTC, between which rows may go; from > until spans midnight; both null: always.
  allowed_from          time,
  allowed_until         time,
  -- Withheld columns (dropped, hashed or masked) whose values nobody needs any more: they go for good.
  forfeit_columns       text[] not null default '{}',
  version               integer not null default 1,
  changed_at            timestamptz not null default now(),
  changed_by            text not null default session_user,
  primary key (table_schema, table_name),
  check ((required = 'named') = (cardinality(destinations) > 0)),
  check ((allowed_from is null) = (allowed_until is null)),
  check (allowed_from <> allowed_until)
);

-- What a policy was, version by version: Tombstones name the version that they were made under.
create table tidemark_retention.policy_versions (
  table_schema text not null,
  table_name   text not null,
  version      integer not null,
  policy       jsonb not null,
  changed_at   timestamptz not null,
  changed_by   text not null,
  primary key (table_schema, table_name, version)
);

create function tidemark_retention.next_policy_version() returns trigger
language plpgsql set search_path = '' as $$
begin
  if tg_op = 'UPDATE' and (new.table_schema, new.table_name) is distinct from (old.table_schema, old.table_name) then
    raise exception 'a policy stays with its table: insert another one' using errcode = 'insufficient_privilege';
  end if;
  new.version := 1 + coalesce((select max(v.version) from tidemark_retention.policy_versions v
    where v.table_schema = new.table_schema and v.table_name = new.table_name), 0);
  new.changed_at := pg_catalog.now();
  new.changed_by := session_user;
  return new;
end $$;
create trigger next_policy_version before insert or update on tidemark_retention.policies
  for each row execute function tidemark_retention.next_policy_version();

-- Afterwards: an insert that turns into an update (on conflict) was no version.
create function tidemark_retention.keep_policy_version() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  insert into tidemark_retention.policy_versions (table_schema, table_name, version, policy, changed_at, changed_by)
    values (new.table_schema, new.table_name, new.version, to_jsonb(new), new.changed_at, new.changed_by);
  return null;
end $$;
create trigger keep_policy_version after insert or update on tidemark_retention.policies
  for each row execute function tidemark_retention.keep_policy_version();

-- A hold on everything of an organization, on a table, or on single rows. It is over when it expires or is released.
create table tidemark_retention.legal_holds (
  id             uuid primary key default gen_random_uuid(),
  tenant         text,
  table_schema   text,
  table_name     text,
  -- As in cold_storage_archive.row_key; null: all rows of the table.
  row_keys       text[],
  reason         text not null check (btrim(reason) <> ''),
  placed_at      timestamptz not null default now(),
  placed_by      text not null default session_user,
  expires_at     timestamptz,
  released_at    timestamptz,
  released_by    text,
  release_reason text,
  check (tenant is not null or table_name is not null),
  check ((table_schema is null) = (table_name is null)),
  check (row_keys is null or table_name is not null),
  check ((released_at is null) = (released_by is null) and (released_at is null) = (release_reason is null))
);
create index legal_holds_open on tidemark_retention.legal_holds (tenant, table_schema, table_name) where released_at is null;

-- Waits for the batch that is being evicted: once a hold is placed, no row under it goes any more.
create function tidemark_retention.wait_for_evictions() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform pg_catalog.pg_advisory_xact_lock(72410004);
  return null;
end $$;
create trigger wait_for_evictions before insert or update on tidemark_retention.legal_holds
  for each statement execute function tidemark_retention.wait_for_evictions();

-- Rows that go without proof of delivery: named, with a reason and an end. Its Tombstones name the override.
create table tidemark_retention.overrides (
  id           uuid primary key default gen_random_uuid(),
  name         text not null unique check (btrim(name) <> ''),
  table_schema text not null,
  table_name   text not null,
  -- Null: every organization's rows.
  tenant       text,
  reason       text not null check (btrim(reason) <> ''),
  granted_at   timestamptz not null default now(),
  granted_by   text not null default session_user,
  expires_at   timestamptz not null,
  check (expires_at > granted_at)
);

-- An override ends early by a row here; both stay for whoever audits.
create table tidemark_retention.override_revocations (
  override_id uuid primary key references tidemark_retention.overrides,
  reason      text not null check (btrim(reason) <> ''),
  revoked_at  timestamptz not null default now(),
  revoked_by  text not null default session_user
);

create function tidemark_retention.keep_audit_row() returns trigger
language plpgsql set search_path = '' as $$
begin
  raise exception '% is only ever added to', tg_table_name using errcode = 'insufficient_privilege';
end $$;
create trigger keep_audit_row before update or delete on tidemark_retention.overrides
  for each row execute function tidemark_retention.keep_audit_row();
create trigger keep_audit_row before update or delete on tidemark_retention.override_revocations
  for each row execute function tidemark_retention.keep_audit_row();
create trigger keep_audit_row before update or delete on tidemark_retention.policy_versions
  for each row execute function tidemark_retention.keep_audit_row();

-- The service reads these; it grants itself nothing.
grant select on tidemark_retention.migrations, tidemark_retention.policies, tidemark_retention.policy_versions, tidemark_retention.legal_holds,
  tidemark_retention.overrides, tidemark_retention.override_revocations to tidemark_retention;
