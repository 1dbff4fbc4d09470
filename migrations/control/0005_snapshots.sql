-- One row per requested snapshot. What was read so far is in Progress; this is the wish, and what status shows.
create table tidemark.snapshots (
  source_id      text not null,
  table_name     text not null,
  id             uuid primary key,
  -- initial: because a slot has only what happens after it; ad-hoc: somebody asked.
  kind           text not null check (kind in ('initial', 'ad-hoc')),
  epoch          integer not null,
  condition      text,
  state          text not null default 'requested'
    check (state in ('requested', 'running', 'paused', 'done', 'cancelled', 'failed')),
  -- What it waits for, in words.
  waits_for      text,
  rows           bigint not null default 0,
  estimated_rows bigint,
  -- Chunks that were read once more, because a transaction was not visible or the table changed.
  rereads        bigint not null default 0,
  requested_at   timestamptz not null default now(),
  started_at     timestamptz,
  finished_at    timestamptz,
  updated_at     timestamptz not null default now(),
  error_code     text,
  error          text,
  remedy         text
);

create unique index snapshots_open on tidemark.snapshots (source_id, table_name)
  where state in ('requested', 'running', 'paused');
create unique index snapshots_initial on tidemark.snapshots (source_id, table_name, epoch) where kind = 'initial';

-- The reader made the slot for this epoch: until it has streamed from it, it may drop it and make it anew.
alter table tidemark.sources add column made_slot boolean not null default false;
