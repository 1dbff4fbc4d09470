-- Snapshots that were asked for before a move was made: what a skip left out, only a later one brings. By their ids, since
-- clocks are set back. Null: a move from before this column.
alter table tidemark.moves add column snapshots_before uuid[];
