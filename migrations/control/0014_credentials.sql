-- Versions of a destination's credentials: a number, and a slow hash of what it stands for.
alter table tidemark.destinations
  add column credentials             integer not null default 0,
  add column credentials_fingerprint text,
  -- Why newer ones are not used.
  add column credentials_problem     text;

-- With which the Window was acknowledged.
alter table tidemark.deliveries add column credentials integer;
