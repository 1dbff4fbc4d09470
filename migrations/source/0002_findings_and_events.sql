-- What the product finds, and the vendor events it finds it in.

CREATE TABLE app.findings (
  organization_id  uuid NOT NULL REFERENCES app.organizations (id),
  id               uuid NOT NULL,
  connection_id    uuid,
  rule_id          text NOT NULL,
  title            text NOT NULL,
  severity         app.severity NOT NULL,
  status           app.finding_status NOT NULL DEFAULT 'open',
  risk_score       numeric(5, 2),
  exposure         numeric,
  confidence       double precision,
  assignee_email   text,
  source_ip        inet,
  oauth_scopes     text[],
  frameworks       app.framework[],
  ports            integer[],
  event_ids        uuid[],
  evidence         text,
  detail           jsonb,
  fingerprint      bytea,
  reopened_count   smallint,
  sla              interval,
  due_on           date,
  suppressed_until timestamptz,
  first_seen_at    timestamptz NOT NULL,
  last_seen_at     timestamptz,
  resolved_at      timestamptz,
  created_at       timestamptz NOT NULL,
  updated_at       timestamptz NOT NULL,
  PRIMARY KEY (organization_id, id),
  -- A finding that moves to another organization takes no connection along: MATCH SIMPLE lets a null through.
  FOREIGN KEY (organization_id, connection_id) REFERENCES app.integration_connections (organization_id, id)
);
CREATE INDEX findings_open ON app.findings (organization_id, severity, created_at)
  WHERE status IN ('open', 'triaged', 'in_progress');
-- Without it, removing a connection would scan all findings to check the foreign key.
CREATE INDEX findings_connection ON app.findings (organization_id, connection_id) WHERE connection_id IS NOT NULL;
COMMENT ON COLUMN app.findings.assignee_email IS '@personal who works on the finding';
COMMENT ON COLUMN app.findings.source_ip IS '@personal address the activity came from';
COMMENT ON COLUMN app.findings.exposure IS 'Estimated loss in the organization''s own currency; no fixed scale';
COMMENT ON COLUMN app.findings.evidence IS 'Captured proof, often several KiB that do not compress';
COMMENT ON COLUMN app.findings.suppressed_until IS '''infinity'' suppresses for good';

-- Partitioned by the day (UTC) of occurred_at, so occurred_at has to be part of the key. No foreign key to
-- integration_connections: events outlive the connection that brought them.
CREATE TABLE app.events (
  organization_id uuid NOT NULL REFERENCES app.organizations (id),
  id              uuid NOT NULL,
  occurred_at     timestamptz NOT NULL,
  received_at     timestamptz NOT NULL,
  connection_id   uuid,
  provider        app.provider NOT NULL,
  event_type      text NOT NULL,
  action          text,
  actor_login     text,
  actor_email     text,
  actor_ip        inet,
  is_bot          boolean,
  oauth_scopes    text[],
  threat_tags     text[],
  payload_bytes   bigint,
  latency_ms      double precision,
  payload         jsonb NOT NULL,
  PRIMARY KEY (organization_id, id, occurred_at)
) PARTITION BY RANGE (occurred_at);
CREATE INDEX events_recent ON app.events (organization_id, occurred_at DESC);
COMMENT ON COLUMN app.events.actor_login IS '@personal account name of the acting user';
COMMENT ON COLUMN app.events.actor_email IS '@personal mailbox of the acting user';
COMMENT ON COLUMN app.events.actor_ip IS '@personal address of the acting user';
COMMENT ON COLUMN app.events.payload IS 'The vendor''s body as received; personal fields inside are dropped on the way to silver';

-- Creates the missing daily partitions for `days` days from first_day on and returns how many it created. The
-- advisory lock serializes callers, who would otherwise race from "missing" to "already exists".
CREATE FUNCTION app.ensure_event_partitions(first_day date, days integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  created integer := 0;
  day date;
  partition text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('app.ensure_event_partitions'));
  FOR offset_days IN 0 .. days - 1 LOOP
    day := first_day + offset_days;
    partition := 'events_p' || to_char(day, 'YYYYMMDD');
    CONTINUE WHEN to_regclass(format('app.%I', partition)) IS NOT NULL;
    EXECUTE format(
      'CREATE TABLE app.%I PARTITION OF app.events FOR VALUES FROM (%L) TO (%L)',
      partition, to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00', to_char(day + 1, 'YYYY-MM-DD') || ' 00:00:00+00');
    created := created + 1;
  END LOOP;
  RETURN created;
END $$;
