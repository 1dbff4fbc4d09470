-- A Window that ends at a verify's target is read up to a later Progress than the one the next Window starts from.
-- Null: the next Window starts at end_offsets.
alter table tidemark.deliveries add column mark_offsets jsonb;
