-- Partitions whose rows all went: where a policy says so, they go as well, as the owner of the table would drop them.

alter table tidemark_retention.policies add column drop_partitions boolean not null default false;

create table tidemark_retention.dropped_partitions (
  partition_oid  oid not null,
  partition_name text not null,
  table_schema   text not null,
  table_name     text not null,
  -- As Postgres prints them.
  bounds         text not null,
  policy_version integer not null,
  dropped_at     timestamptz not null default now(),
  dropped_by     text not null default session_user,
  primary key (dropped_at, partition_oid)
);
create trigger keep_audit_row before update or delete on tidemark_retention.dropped_partitions
  for each row execute function tidemark_retention.keep_audit_row();
create trigger keep_all before truncate on tidemark_retention.dropped_partitions
  execute function tidemark_retention.keep_all();
revoke all on tidemark_retention.dropped_partitions from public;
grant select on tidemark_retention.dropped_partitions to tidemark_retention, tidemark_retention_officer;

-- Where the range of a partition ends (UTC), if its table is partitioned by this column alone; else null.
create function tidemark_retention.partition_end(partition oid, age_column text) returns timestamptz
language plpgsql stable set search_path = '' set timezone = 'UTC' set datestyle = 'ISO, YMD' as $$
declare
  bound text;
  kind text;
begin
  select (pg_catalog.regexp_match(pg_catalog.pg_get_expr(p.relpartbound, p.oid), ' TO \(''([^'']+)''\)$'))[1],
         pg_catalog.format_type(a.atttypid, null)
    into bound, kind
    from pg_catalog.pg_class p
    join pg_catalog.pg_inherits i on i.inhrelid = p.oid
    join pg_catalog.pg_partitioned_table t on t.partrelid = i.inhparent
    join pg_catalog.pg_attribute a on a.attrelid = i.inhparent and a.attnum = t.partattrs[0]
   where p.oid = partition and p.relkind = 'r' and p.relispartition and not i.inhdetachpending
     and t.partstrat = 'r' and t.partnatts = 1 and a.attname = age_column;
  if bound is null or kind not in ('date', 'timestamp without time zone', 'timestamp with time zone') then
    return null;
  end if;
  return bound::timestamptz;
end $$;

-- Detaches and drops a partition that has no rows, and whose range is over. Whether it has some is looked at under the lock,
-- which nobody waits behind for long. @returns whether it was dropped
create function tidemark_retention.drop_partition(partition oid) returns boolean
language plpgsql security definer
set search_path = '' set row_security = off set lock_timeout = '500ms' as $$
declare
  parent oid;
  p record;
  empty boolean;
begin
  -- With an older view of the table, rows would be missed.
  if pg_catalog.current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'partitions are dropped in read committed alone' using errcode = 'invalid_transaction_state';
  end if;
  select i.inhparent into parent from pg_catalog.pg_inherits i where i.inhrelid = partition;
  select c.oid::regclass as "table", partition::regclass as name, o.version, o.table_schema, o.table_name, o.age_column,
         pg_catalog.pg_get_expr(l.relpartbound, l.oid) as bounds
    into p
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_class l on l.oid = partition
    join tidemark_retention.policies o on (o.table_schema, o.table_name) = (n.nspname, c.relname)
   where c.oid = parent and o.enabled and o.drop_partitions;
  if not found then
    raise exception 'no policy lets this partition be dropped' using errcode = 'insufficient_privilege';
  end if;
  execute pg_catalog.format('select not exists (select from only %s)', p.name) into empty;
  if not empty then
    return false;
  end if;
  execute pg_catalog.format('lock table only %s in access exclusive mode', p."table");
  execute pg_catalog.format('lock table only %s in access exclusive mode', p.name);
  execute pg_catalog.format('select not exists (select from only %s)', p.name) into empty;
  if not empty or coalesce(tidemark_retention.partition_end(partition, p.age_column) > pg_catalog.now(), true) then
    return false;
  end if;
  insert into tidemark_retention.dropped_partitions
      (partition_oid, partition_name, table_schema, table_name, bounds, policy_version)
    values (partition, p.name::text, p.table_schema, p.table_name, p.bounds, p.version);
  execute pg_catalog.format('alter table %s detach partition %s', p."table", p.name);
  execute pg_catalog.format('drop table %s', p.name);
  return true;
end $$;

revoke all on function tidemark_retention.partition_end(oid, text), tidemark_retention.drop_partition(oid) from public;
grant execute on function tidemark_retention.partition_end(oid, text), tidemark_retention.drop_partition(oid)
  to tidemark_retention;
