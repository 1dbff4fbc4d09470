-- Whom a snapshot is for; null: all destinations.
alter table tidemark.snapshots add column destination text;
