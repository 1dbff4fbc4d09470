-- The delivery ledger. Lives in a schema of its own, owned by a role of its own; keyed by source id, so that one
-- control database can serve several sources. Positions are text of fixed width: they sort as text.
create table tidemark.sources (
  source_id         text primary key,
  system_identifier text not null,
  timeline          integer not null,
  slot              text not null,
  epoch             integer not null,
  -- creating: the slot may exist but no origin Progress was written; streaming: Progress must exist in Kafka.
  state             text not null check (state in ('creating', 'streaming')),
  format            integer not null default 1,
  changed_at        timestamptz not null default now()
);

create table tidemark.destinations (
  source_id   text not null,
  destination text not null,
  kind        text not null,
  -- running, or failed with an error that waits for somebody.
  state       text not null default 'running' check (state in ('running', 'failed')),
  error_code  text,
  error       text,
  remedy      text,
  changed_at  timestamptz not null default now(),
  primary key (source_id, destination)
);

-- One row per Unit: its owner, its high-water mark, and where in Kafka the next Window starts.
create table tidemark.units (
  source_id        text not null,
  destination      text not null,
  unit             text not null,
  -- Fencing token: grows with every change of owner; every write below names it.
  token            bigint not null default 0,
  owner            text,
  owner_seen_at    timestamptz,
  -- End Position of the last Window, gapless; null before the first.
  mark             text,
  mark_time_us     bigint,
  -- End Position and number of the last Window that was handed to the destination (empty ones are not).
  merged_position  text,
  merged_sequence  bigint not null default 0,
  -- Topic to start offset per partition: a lower bound; records at or below the mark are skipped.
  mark_offsets     jsonb,
  error_code       text,
  error            text,
  remedy           text,
  error_at         timestamptz,
  primary key (source_id, destination, unit),
  foreign key (source_id, destination) references tidemark.destinations on delete cascade
);

-- One row per Window that had something to deliver. Decided before the first byte is written.
create table tidemark.deliveries (
  source_id      text not null,
  destination    text not null,
  unit           text not null,
  sequence       bigint not null,
  from_position  text not null,
  to_position    text not null,
  end_offsets    jsonb not null,
  commit_time_us bigint not null,
  state          text not null default 'decided' check (state in ('decided', 'delivered')),
  token          bigint not null,
  attempts       integer not null default 0,
  decided_at     timestamptz not null default now(),
  delivered_at   timestamptz,
  receipt        jsonb,
  error_code     text,
  format         integer not null default 1,
  primary key (source_id, destination, unit, sequence),
  check (from_position < to_position),
  check ((state = 'delivered') = (receipt is not null)),
  foreign key (source_id, destination, unit) references tidemark.units on delete cascade
);

-- At most one Window of a Unit is in flight.
create unique index deliveries_open on tidemark.deliveries (source_id, destination, unit) where state = 'decided';

-- verify asks a destination to stop at an exact Position while it compares.
create table tidemark.holds (
  source_id   text not null,
  destination text not null,
  holder      text not null,
  -- null: stop cutting Windows now; set: go on to exactly this Position, then stop.
  target      text,
  expires_at  timestamptz not null,
  primary key (source_id, destination)
);
