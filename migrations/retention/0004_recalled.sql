-- Recalls are few among Tombstones; metrics count them.
create index cold_storage_archive_recalled on tidemark_retention.cold_storage_archive (table_schema, table_name)
  where recalled_at is not null;
