-- Erasure for privacy law: an evicted row's Tombstone stays as a marker that says so, without what its content could be told by.

-- Who had what erased, and why. Keys are not repeated here: of rows that were not evicted nothing is to be left.
create table tidemark_retention.erasures (
  id           uuid primary key default gen_random_uuid(),
  tenant       text,
  -- Of an erasure by key; null: every table of the tenant.
  table_schema text,
  table_name   text,
  keys         integer check (keys > 0),
  reason       text not null check (btrim(reason) <> ''),
  asked_by     text not null check (btrim(asked_by) <> ''),
  begun_at     timestamptz not null default now(),
  begun_by     text not null default session_user,
  ended_at     timestamptz,
  -- What was reached, and what was not.
  report       jsonb,
  check ((table_schema is null) = (table_name is null)),
  check ((tenant is null) = (keys is not null)),
  check (keys is null or table_name is not null)
);

create function tidemark_retention.keep_erasure() returns trigger
language plpgsql set search_path = '' as $$
begin
  if tg_op = 'INSERT' then
    new.begun_at := pg_catalog.now();
    new.begun_by := session_user;
    return new;
  end if;
  if tg_op = 'DELETE' or old.ended_at is not null
     or (pg_catalog.to_jsonb(new) - array['ended_at', 'report']) is distinct from (pg_catalog.to_jsonb(old) - array['ended_at', 'report']) then
    raise exception 'an erasure gets its end and its report, once' using errcode = 'insufficient_privilege';
  end if;
  return new;
end $$;
create trigger keep_erasure before insert or update or delete on tidemark_retention.erasures
  for each row execute function tidemark_retention.keep_erasure();
create trigger keep_all before truncate on tidemark_retention.erasures execute function tidemark_retention.keep_all();

-- The reader takes the update that sets erased_at for the row's delete, wherever the row is: so it comes once, and last.
alter table tidemark_retention.cold_storage_archive
  add column erased_at timestamptz, add column erased_by text, add column erasure_id uuid,
  add check ((erased_at is null) = (erased_by is null) and (erased_at is null) = (erasure_id is null)),
  add check (erased_at is null or salt is null);
create index cold_storage_archive_not_erased on tidemark_retention.cold_storage_archive (tenant, table_schema, table_name)
  where erased_at is null;

-- As before, and an erased one not at all.
create or replace function tidemark_retention.keep_tombstone() returns trigger
language plpgsql set search_path = '' as $$
declare
  kept record;
begin
  if tg_op = 'DELETE' then
    raise exception 'a Tombstone is not deleted: detach the partition of its month when the audit window has passed' using errcode = 'insufficient_privilege';
  end if;
  kept := old;
  kept.salt := new.salt;
  kept.salt_erased_at := new.salt_erased_at;
  kept.recalled_at := new.recalled_at;
  kept.recalled_by := new.recalled_by;
  kept.recall_reason := new.recall_reason;
  kept.erased_at := new.erased_at;
  kept.erased_by := new.erased_by;
  kept.erasure_id := new.erasure_id;
  if kept is distinct from new
     or old.erased_at is not null
     or (new.salt is not null and new.salt is distinct from old.salt)
     or (old.salt_erased_at is not null and new.salt_erased_at is distinct from old.salt_erased_at)
     or (old.recalled_at is not null and (new.recalled_at, new.recalled_by) is distinct from (old.recalled_at, old.recalled_by)) then
    raise exception 'a Tombstone only loses its salt, gets its recall and is erased, each once' using errcode = 'insufficient_privilege';
  end if;
  return new;
end $$;

grant select, insert, update (ended_at, report) on tidemark_retention.erasures to tidemark_retention;
grant update (erased_at, erased_by, erasure_id) on tidemark_retention.cold_storage_archive to tidemark_retention;
grant select on tidemark_retention.erasures to tidemark_retention_officer;
