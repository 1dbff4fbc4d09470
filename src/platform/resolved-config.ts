/**
 * The configuration after validation: what the rest of the program trusts. config.ts makes it from tidemark.yaml
 * and the instance files; nothing else reads configuration.
 */
import type { ConnectionOptions as TlsOptions } from 'node:tls';
import type { ColumnPolicy } from './column-policy.ts';
import type { TableId } from './table-name.ts';

/** Options for node:tls, or false for plain text. */
export type ResolvedTls = TlsOptions | false;

export interface PostgresEndpoint {
  host: string;
  port: number;
  database: string;
  user: string;
  password: string | null;
  tls: ResolvedTls;
}

export type { ColumnPolicy };

/** How versions of a subject must fit together, by the Schema Registry's own names. */
export type Compatibility =
  | 'NONE'
  | 'BACKWARD'
  | 'BACKWARD_TRANSITIVE'
  | 'FORWARD'
  | 'FORWARD_TRANSITIVE'
  | 'FULL'
  | 'FULL_TRANSITIVE';

/** What becomes of a table whose change of shape breaks its subject's compatibility. */
export const incompatibleChanges = ['park', 'evolve', 'text'] as const;
export type IncompatibleChange = (typeof incompatibleChanges)[number];

export interface TableRule {
  /** `schema.table`, or `schema.*`. */
  pattern: string;
  /** Tenant column, or null for none; undefined: source.tenant.column where the table has it. */
  tenantColumn: string | null | undefined;
  /** Undefined: as source.snapshot.mode says. */
  snapshotMode?: 'initial' | 'never';
  /** Explicit choices, by column name. */
  columns: Record<string, ColumnPolicy>;
  /** `on.incompatible.change`; absent: park. */
  onIncompatibleChange?: IncompatibleChange;
}

export interface SourceConfig {
  /** Names this source in topics, groups and the ledger; never change it. */
  id: string;
  endpoint: PostgresEndpoint;
  slot: string;
  /** Make the slot one that standbys keep too (Postgres 17 and later). */
  slotFailover: boolean;
  /** WAL that the slot may keep, and what is done beyond; null: no budget. */
  walBudget: { bytes: number; action: 'warn' | 'drop-slot' } | null;
  publication: string;
  tables: TableRule[];
  /** Name of the column that holds the tenant, where a table has it. */
  tenantColumn: string | null;
  /** Column names (lower case, `*` allowed) that count as personal beside those commented `@personal`. */
  personalColumns: string[];
  /** `privacy.hash.key`; set where a column has the policy hash. */
  hashKey: string | null;
  heartbeatIntervalMs: number;
  /** Dropped columns are left out by column lists, where Postgres takes one; absent: they are. */
  publicationColumnLists?: boolean;
  /** How often the publications are compared with the configuration; absent: every 10 s. */
  publicationIntervalMs?: number;
  /** How often a standby status goes out at least; must be well inside wal_sender_timeout. */
  statusIntervalMs: number;
  /** How values are read: binary unless a tracked column has a type whose binary form is not known, or as said. */
  values: 'auto' | 'binary' | 'text';
  snapshot: {
    /** What happens to rows from before the slot, or from before a table joined. */
    mode: 'initial' | 'never';
    /** A chunk ends at whichever comes first. */
    chunkRows: number;
    chunkBytes: number;
  };
}

export interface KafkaConfig {
  brokers: string[];
  clientId: string;
  tls: ResolvedTls;
  sasl: { mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512'; username: string; password: string } | null;
  /** Topics are `<prefix>.<schema>.<table>`, `<prefix>.progress`, `<prefix>.parked`, `<prefix>.quarantine`. */
  topicPrefix: string;
  partitions: number;
  replicationFactor: number;
  minInsyncReplicas: number;
  retentionMs: number;
  rowMaxBytes: number;
  compression: 'none' | 'gzip' | 'zstd';
  producer: 'record-batches' | 'kafkajs';
  /** Encoded bytes that one Kafka transaction may hold before it is closed. */
  batchMaxBytes: number;
  transactionTimeoutMs: number;
  sessionTimeoutMs: number;
}

export interface RegistryConfig {
  url: string;
  username: string | null;
  password: string | null;
  tls: ResolvedTls;
  /** Of the change topics' subjects; absent: BACKWARD. */
  compatibility?: Compatibility;
}

export interface DeliverConfig {
  /** Folder with the instance files. */
  instancesDirectory: string;
  /** Of rows that wait for their Window, all destinations of a process together. */
  memoryBytes: number;
  spillDirectory: string;
  /** Per destination. */
  spillMaxBytes: number;
  /** DuckDB's memory limit per destination. */
  spillMemoryBytes: number;
}

/** Set where `retain.enabled` is true. */
export interface RetainConfig {
  /** As a member of tidemark_retention. */
  endpoint: PostgresEndpoint;
  /** Of `tidemark retain setup`. */
  setupEndpoint: PostgresEndpoint;
  /** Of whoever places holds and grants overrides. */
  officerEndpoint: PostgresEndpoint;
  intervalMs: number;
  markRows: number;
  /** Of a transaction whose Tombstones are about other rows (TM246). */
  unmatchedDeletes: 'stop' | 'delete';
  /** PEM of the Ed25519 key that evidence is signed with; null: none can be made. */
  evidenceKey: string | null;
  /** Where tenants' days are; null: tables with a tenant column are not evicted. */
  tenants: { table: TableId; key: string; days: string } | null;
}

export interface DestinationConfig {
  /** The instance file's `name`. */
  name: string;
  /** Path of the instance file, for messages. */
  file: string;
  /** `connector.class`. */
  kind: string;
  /** `tables`: patterns of the subscribed tables (`schema.table`, `schema.*`). */
  tables: string[];
  /** `tenant`: the one whose rows it gets; null: everybody's. */
  tenant: string | null;
  /** `cadence`: 0 for `continuous`. */
  cadenceMs: number;
  /** `cadence.<schema>.<table>` overrides, for sinks whose Unit is a table. */
  tableCadenceMs: Record<string, number>;
  /** `window.max.records`: a Window that reached it ends at the next transaction boundary. */
  windowMaxRecords: number;
  /** `quarantine.max.rows`, of one Unit. */
  quarantineMaxRows: number;
  /** `pause.after`: failing for so long in a row, it pauses itself; null: it is retried for ever. */
  pauseAfterMs: number | null;
  /** The sink's own options, validated against SinkKind.options. */
  options: Record<string, string | number | boolean | string[] | null>;
}

export interface ResolvedConfig {
  /** Absolute path of tidemark.yaml. */
  file: string;
  source: SourceConfig;
  kafka: KafkaConfig;
  registry: RegistryConfig;
  control: PostgresEndpoint;
  deliver: DeliverConfig;
  destinations: DestinationConfig[];
  /** Absent: nothing is evicted. */
  retain?: RetainConfig;
  observe: { metricsHost: string; metricsPort: number | null };
}
