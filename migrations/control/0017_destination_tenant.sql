-- Whose rows a destination that keeps rows has got so far: {"tenant": null} is everybody's. Null: not known yet.
alter table tidemark.destinations add column bound jsonb;
