-- What the retention service did last with each table; the Tombstones themselves are in the source database.
create table tidemark.retention (
  source_id       text not null,
  table_name      text not null,
  looked_at       timestamptz not null,
  -- Rows that are old enough and wait for proof of delivery, and since when.
  marked          bigint not null default 0,
  marked_at       timestamptz,
  -- Position that the required destinations have to reach; null: not known yet.
  waits_for       text,
  evicted         bigint not null default 0,
  last_evicted_at timestamptz,
  -- Reason to number of rows: why rows that are old enough stay.
  staying         jsonb not null default '{}',
  error_code      text,
  error           text,
  remedy          text,
  primary key (source_id, table_name)
);
