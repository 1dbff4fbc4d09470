-- Snapshots of whole tables that were under way at the Window's end, or ended in it: part of what was decided.
alter table tidemark.deliveries add column snapshots jsonb;
