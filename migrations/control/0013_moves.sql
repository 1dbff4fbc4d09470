-- Places in the stream that an operator sent a Unit to. Kept: what was skipped is missing until the table is read again.
create table tidemark.moves (
  id            bigint generated always as identity primary key,
  source_id     text not null,
  destination   text not null,
  unit          text not null,
  -- skip: forward, over changes that are not delivered; replay: back to what the destination holds, or to `target`.
  kind          text not null check (kind in ('skip', 'replay')),
  -- Null: the newest boundary (skip), what the destination holds (replay).
  target        text,
  requested_by  text not null,
  reason        text not null,
  requested_at  timestamptz not null default now(),
  from_position text,
  to_position   text,
  done_at       timestamptz,
  foreign key (source_id, destination, unit) references tidemark.units on delete cascade
);

create unique index moves_open on tidemark.moves (source_id, destination, unit) where done_at is null;
