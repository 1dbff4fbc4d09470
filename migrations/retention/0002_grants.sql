-- Who places holds and grants overrides, and that what was placed or granted stays as it was.

do $$
begin
  if not exists (select from pg_roles where rolname = 'tidemark_retention_officer') then
    create role tidemark_retention_officer nologin;
  end if;
end $$;

-- The database knows a role, and several people may share it: the name of the person is their own word.
alter table tidemark_retention.legal_holds add column asked_by text check (btrim(asked_by) <> ''),
  add column release_asked_by text check (btrim(release_asked_by) <> '');
alter table tidemark_retention.overrides add column asked_by text check (btrim(asked_by) <> '');
alter table tidemark_retention.override_revocations add column asked_by text check (btrim(asked_by) <> '');

-- A hold is released, once; whoever wants another scope or another end places another hold.
create function tidemark_retention.keep_hold() returns trigger
language plpgsql set search_path = '' as $$
declare
  release text[] := array['released_at', 'released_by', 'release_reason', 'release_asked_by'];
begin
  if tg_op = 'INSERT' then
    new.placed_at := pg_catalog.now();
    new.placed_by := session_user;
    return new;
  end if;
  if tg_op = 'DELETE' or old.released_at is not null
     or (pg_catalog.to_jsonb(new) - release) is distinct from (pg_catalog.to_jsonb(old) - release) then
    raise exception 'a legal hold is released, once, and stays: place another one for another scope or end' using errcode = 'insufficient_privilege';
  end if;
  if new.released_at is not null then
    new.released_at := pg_catalog.now();
    new.released_by := session_user;
  end if;
  return new;
end $$;
create trigger keep_hold before insert or update or delete on tidemark_retention.legal_holds
  for each row execute function tidemark_retention.keep_hold();

-- Those of before may have been granted for longer.
alter table tidemark_retention.overrides
  add constraint at_most_30_days check (expires_at <= granted_at + interval '30 days 1 minute') not valid;

create function tidemark_retention.name_grantor() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.granted_at := pg_catalog.now();
  new.granted_by := session_user;
  return new;
end $$;
create trigger name_grantor before insert on tidemark_retention.overrides
  for each row execute function tidemark_retention.name_grantor();

create function tidemark_retention.name_revoker() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.revoked_at := pg_catalog.now();
  new.revoked_by := session_user;
  return new;
end $$;
create trigger name_revoker before insert on tidemark_retention.override_revocations
  for each row execute function tidemark_retention.name_revoker();

create function tidemark_retention.keep_all() returns trigger
language plpgsql set search_path = '' as $$
begin
  raise exception '% is not emptied: it is kept for whoever audits', tg_table_name using errcode = 'insufficient_privilege';
end $$;
create trigger keep_all before truncate on tidemark_retention.legal_holds execute function tidemark_retention.keep_all();
create trigger keep_all before truncate on tidemark_retention.overrides execute function tidemark_retention.keep_all();
create trigger keep_all before truncate on tidemark_retention.override_revocations execute function tidemark_retention.keep_all();
create trigger keep_all before truncate on tidemark_retention.policy_versions execute function tidemark_retention.keep_all();

grant usage on schema tidemark_retention to tidemark_retention_officer;
grant select on all tables in schema tidemark_retention to tidemark_retention_officer;
revoke select on tidemark_retention.cold_storage_archive from tidemark_retention_officer;
-- Whether a row is known by its Tombstone, without what proves its content.
grant select (evicted_at, id, table_schema, table_name, row_key, tenant, recalled_at)
  on tidemark_retention.cold_storage_archive to tidemark_retention_officer;
grant insert on tidemark_retention.legal_holds, tidemark_retention.overrides, tidemark_retention.override_revocations
  to tidemark_retention_officer;
grant update (released_at, released_by, release_reason, release_asked_by) on tidemark_retention.legal_holds
  to tidemark_retention_officer;

-- As with holds: once an override is revoked, nothing goes by it.
create trigger wait_for_evictions before insert on tidemark_retention.override_revocations
  for each statement execute function tidemark_retention.wait_for_evictions();
