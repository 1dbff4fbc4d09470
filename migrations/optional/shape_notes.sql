-- Optional: tells the reader of every change of a table's shape at its exact place in the stream, which pgoutput alone
-- does not: the columns' numbers (what tells a rename from a drop and an add), the values that existing rows get in an
-- added column, enum labels, and that a table is new. Without it the reader asks the catalogue when it meets the
-- change, and where the catalogue has moved on since, it does not claim to know (docs/operate.md).
--
-- Run as a superuser in the source database; running it again brings it up to date. Remove it with
--   drop event trigger tidemark_shape_notes; drop schema tidemark_notes cascade;
create schema if not exists tidemark_notes;

-- One row per column, in the form that the reader reads from the catalogue too.
create or replace function tidemark_notes.columns(relation oid) returns jsonb
language sql stable
set search_path = pg_catalog
set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC' set bytea_output = 'hex'
set extra_float_digits = 1
as $$
  with stored (oid) as (
    -- The values of existing rows stand with the relations that have rows: a partitioned table has them in its leaves.
    select relation union select relid from pg_partition_tree(relation) where isleaf)
  select jsonb_agg(jsonb_build_object(
           'name', a.attname, 'number', a.attnum, 'type', a.atttypid::bigint, 'typmod', a.atttypmod,
           'missing', (select (s.attmissingval::text::text[])[1] from stored join pg_attribute s on s.attrelid = stored.oid
                        where s.attname = a.attname and s.atthasmissing limit 1),
           'computed', a.attidentity <> '' or coalesce(t.typtype = 'd' and d.adbin is not null, false)
             or exists (select from regexp_matches(d.adbin::text, ':(?:funcid|opfuncid) ([0-9]+)', 'g') m
                          join pg_proc p on p.oid = m[1]::oid where p.provolatile = 'v'))
           order by a.attnum)
    from pg_attribute a join pg_type t on t.oid = a.atttypid
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
   where a.attrelid = relation and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
$$;

create or replace function tidemark_notes.write() returns event_trigger
language plpgsql security definer
set search_path = pg_catalog
as $$
declare
  note record;
begin
  for note in
    select d.objid, bool_or(d.command_tag like 'CREATE %') as made
      from pg_event_trigger_ddl_commands() d join pg_class c on c.oid = d.objid
     where d.classid = 'pg_class'::regclass and c.relkind in ('r', 'p') and c.relpersistence = 'p'
     group by d.objid
  loop
    perform pg_logical_emit_message(true, 'tidemark.shape', jsonb_build_object(
      'format', 1, 'oid', note.objid::bigint, 'made', note.made,
      'columns', tidemark_notes.columns(note.objid))::text);
  end loop;
  for note in
    select n.nspname, t.typname from pg_event_trigger_ddl_commands() d
      join pg_type t on t.oid = d.objid join pg_namespace n on n.oid = t.typnamespace
     where d.classid = 'pg_type'::regclass and t.typtype = 'e'
  loop
    perform pg_logical_emit_message(true, 'tidemark.labels', jsonb_build_object(
      'format', 1, 'schema', note.nspname, 'name', note.typname)::text);
  end loop;
end
$$;

drop event trigger if exists tidemark_shape_notes;
create event trigger tidemark_shape_notes on ddl_command_end
  when tag in ('ALTER TABLE', 'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TYPE')
  execute function tidemark_notes.write();
