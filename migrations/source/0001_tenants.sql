-- The sample application's tenants and the vendor accounts they connected.
--
-- Every tenant-owned table is keyed (organization_id, …), so the tenant is part of the replica identity and
-- survives in the key of deletes; organizations itself is keyed by id.

CREATE SCHEMA IF NOT EXISTS app;

CREATE TYPE app.plan AS ENUM ('trial', 'team', 'business', 'enterprise');
CREATE TYPE app.provider AS ENUM ('github', 'okta', 'google_workspace', 'slack', 'aws', 'syslog');
CREATE TYPE app.connection_status AS ENUM ('pending', 'active', 'degraded', 'revoked');
CREATE TYPE app.severity AS ENUM ('info', 'low', 'medium', 'high', 'critical');
CREATE TYPE app.finding_status AS ENUM ('open', 'triaged', 'in_progress', 'resolved', 'suppressed');
CREATE TYPE app.framework AS ENUM ('soc2', 'iso27001', 'pci_dss', 'hipaa', 'cis');
CREATE TYPE app.run_status AS ENUM ('running', 'succeeded', 'partial', 'failed');
CREATE TYPE app.channel AS ENUM ('email', 'slack', 'teams', 'jira', 'linear', 'pagerduty', 'webhook');
CREATE TYPE app.delivery_status AS ENUM ('pending', 'sending', 'delivered', 'failed', 'dead');
CREATE TYPE app.outcome AS ENUM ('allowed', 'denied', 'error');

CREATE TABLE app.organizations (
  id                     uuid PRIMARY KEY,
  name                   text NOT NULL,
  slug                   varchar(64) NOT NULL UNIQUE,
  plan                   app.plan NOT NULL DEFAULT 'trial',
  data_retention_days    integer NOT NULL DEFAULT 90 CHECK (data_retention_days BETWEEN 1 AND 3650),
  is_active              boolean NOT NULL DEFAULT true,
  contract_start         date,
  annual_spend           numeric(14, 2),
  security_contact_email text,
  contact_phone          text,
  email_domains          text[] NOT NULL DEFAULT '{}',
  frameworks             app.framework[] NOT NULL DEFAULT '{}',
  settings               jsonb NOT NULL DEFAULT '{}',
  created_at             timestamptz NOT NULL,
  updated_at             timestamptz NOT NULL
);
COMMENT ON COLUMN app.organizations.data_retention_days IS 'Days a row of this organization stays in the hot database';
COMMENT ON COLUMN app.organizations.security_contact_email IS '@personal mailbox of the person responsible for security';
COMMENT ON COLUMN app.organizations.contact_phone IS '@personal telephone number of the same person';

CREATE TABLE app.integration_connections (
  organization_id        uuid NOT NULL REFERENCES app.organizations (id),
  id                     uuid NOT NULL,
  provider               app.provider NOT NULL,
  display_name           varchar(120) NOT NULL,
  external_account_id    bigint,
  status                 app.connection_status NOT NULL DEFAULT 'pending',
  enabled                boolean NOT NULL DEFAULT true,
  granted_scopes         text[] NOT NULL DEFAULT '{}',
  installed_by_email     text,
  token_key_version      smallint NOT NULL DEFAULT 1,
  credential_fingerprint bytea,
  poll_interval          interval NOT NULL DEFAULT '15 minutes',
  config                 jsonb,
  last_sync_at           timestamptz,
  last_error             text,
  created_at             timestamptz NOT NULL,
  updated_at             timestamptz NOT NULL,
  PRIMARY KEY (organization_id, id)
);
CREATE INDEX integration_connections_due ON app.integration_connections (last_sync_at) WHERE enabled;
COMMENT ON COLUMN app.integration_connections.installed_by_email IS '@personal who authorized the connection';
COMMENT ON COLUMN app.integration_connections.credential_fingerprint IS 'SHA-256 of the credential, never the credential';
