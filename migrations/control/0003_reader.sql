-- What the reader last said of itself, for `tidemark status`.
alter table tidemark.sources
  add column error_code text,
  add column error      text,
  add column remedy     text,
  add column seen_at    timestamptz;
