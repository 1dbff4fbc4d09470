-- What the reader published, to notice that somebody changed it; and of what changes may be missing since.
alter table tidemark.sources
  add column published       jsonb,
  add column publication_gap jsonb;
