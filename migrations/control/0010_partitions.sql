-- The partitions whose rows come through the stream or were asked for, by oid: one that is not among them was attached.
alter table tidemark.sources add column partitions jsonb;
