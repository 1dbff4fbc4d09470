-- A destination that somebody paused, or that paused itself after failing for long: it keeps its mark and delivers nothing.
alter table tidemark.destinations
  add column paused_at    timestamptz,
  -- Who, and why; `tidemark` where the destination's own rule did.
  add column paused_by    text,
  add column pause_reason text,
  -- When somebody last wanted it to go on: what waits for its next attempt is tried then.
  add column resumed_at   timestamptz;

-- Since when a Unit fails without a success in between, how often, and when it is tried again.
alter table tidemark.units
  add column failing_since   timestamptz,
  add column failures        integer not null default 0,
  add column next_attempt_at timestamptz;

alter table tidemark.deliveries
  -- Of the last attempt that failed.
  add column error           text,
  add column remedy          text,
  add column next_attempt_at timestamptz,
  -- Of the attempt that the destination acknowledged.
  add column duration_ms     bigint;
