-- Rows that a destination refused. What they are is in the dead-letter topic; here is which, why, and what becomes of them.
create table tidemark.quarantine (
  id             bigint generated always as identity primary key,
  source_id      text not null,
  destination    text not null,
  unit           text not null,
  table_name     text not null,
  topic          text not null,
  -- Of the record, without the registry's header: what later changes of the row are known by.
  key            bytea not null,
  -- held: later changes of the row collect behind it; replaying: the next Window takes it along; dropped: not to be
  -- delivered, and nothing that builds on it either; superseded: the row came whole later, and was taken.
  state          text not null default 'held' check (state in ('held', 'replaying', 'replayed', 'dropped', 'superseded')),
  -- Another entry takes values from its row (a key change): then it is never superseded.
  bound          boolean not null default false,
  reason         text not null,
  -- Of the refused state.
  position       text not null,
  -- Number of the Window that was written without it.
  sequence       bigint not null,
  quarantined_at timestamptz not null default now(),
  changed_at     timestamptz not null default now(),
  foreign key (source_id, destination, unit) references tidemark.units on delete cascade
);

create unique index quarantine_active on tidemark.quarantine (source_id, destination, unit, topic, key)
  where state in ('held', 'replaying', 'dropped');

-- The changes of each, in the order of their Positions.
create table tidemark.quarantined_changes (
  quarantine_id bigint not null references tidemark.quarantine on delete cascade,
  position      text not null,
  -- In the dead-letter topic.
  record_offset bigint not null,
  bytes         bigint not null,
  primary key (quarantine_id, position)
);

-- A Window that only takes quarantined rows along begins and ends at the mark.
alter table tidemark.deliveries
  add column replays bigint[],
  drop constraint deliveries_check,
  add constraint deliveries_range check (from_position < to_position or (replays is not null and from_position = to_position));

-- Schema id by topic of what was delivered last: the shapes that the destination has.
alter table tidemark.units add column schema_ids jsonb;
