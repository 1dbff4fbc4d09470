/**
 * Every configuration key, once: the parser, docs/configuration.md and docs/tidemark.schema.json are made from these
 * tables.
 */

import { incompatibleChanges } from '../resolved-config.ts';
import { tablePatternForm } from '../table-name.ts';
import { endpointFields, tlsFields } from './connection-fields.ts';
import { type FieldTable, underPrefix, type Values } from './field.ts';

/** What `personal.columns` drops where nobody chose otherwise: names that hold a person's data in most schemas. */
const personalColumns = [
  'email',
  '*_email',
  'email_address',
  'phone',
  '*_phone',
  'phone_number',
  'mobile',
  'first_name',
  'last_name',
  'middle_name',
  'full_name',
  'display_name',
  'date_of_birth',
  'birth_date',
  'dob',
  'ssn',
  'social_security_number',
  'passport_number',
  'national_id',
  'street_address',
  'home_address',
  'postal_address',
] as const;

export const tablePattern = {
  pattern: tablePatternForm,
  says: '`schema.table` or `schema.*`, a name with a dot, comma, star, quote or space in double quotes',
};
const slotName = { pattern: /^[a-z0-9_]{1,63}$/, says: '1 to 63 of a-z, 0-9 and _' };
const hostAndPort = {
  pattern: /^(\[[0-9A-Fa-f:.]+\]|[^\s:/@[\]]+):([1-9]\d{0,4})$/,
  says: '`host:port`',
};

const ownSourceFields = {
  id: {
    type: 'string',
    unit: 'name',
    form: { pattern: /^[a-z0-9][a-z0-9_-]{0,47}$/, says: 'a-z, 0-9, _ and -, at most 48' },
    description: 'Names this source in topics, consumer groups and the ledger. Never change it.',
  },
  slot: {
    type: 'string',
    unit: 'name',
    default: null,
    defaultText: '`tidemark_` and source.id, - written as _',
    form: slotName,
    description: 'Replication slot to read.',
  },
  'slot.failover': {
    type: 'boolean',
    unit: 'true or false',
    default: true,
    description:
      'Create the slot so that standbys with sync_replication_slots keep it too, and it is there after a promotion. Ignored before Postgres 17.',
  },
  'wal.budget.bytes': {
    type: 'bytes',
    unit: 'bytes',
    default: null,
    min: 2 ** 20,
    description:
      'WAL that the slot may keep on the source; from 80 per cent on, log, status and metrics say so (TM243). Absent: no limit but the disk and max_slot_wal_keep_size.',
  },
  'wal.budget.action': {
    type: 'string',
    unit: 'action',
    default: 'warn',
    oneOf: ['warn', 'drop-slot'],
    description:
      'What happens beyond the budget: only the warning, or the slot is dropped so that the source keeps its disk (TM244), after which the stream starts anew.',
  },
  publication: {
    type: 'string',
    unit: 'name',
    default: null,
    defaultText: '`tidemark_` and source.id, - written as _',
    form: slotName,
    description: 'Publication to read.',
  },
  tables: {
    type: 'tables',
    unit: 'list of rules',
    description:
      'Tables to stream: `schema.table` or `schema.*`, or mappings with the keys under "Table rules".',
  },
  'tenant.column': {
    type: 'string',
    unit: 'column name',
    default: null,
    description: 'Column that holds the tenant, in every table that has a column of that name.',
  },
  'personal.columns': {
    type: 'list',
    unit: 'name patterns',
    default: personalColumns,
    form: { pattern: /^[^\s.]+$/, says: 'a column name in which `*` stands for any text' },
    description:
      'Column names that count as personal data and are dropped unless a table rule keeps them, beside the columns commented `@personal`. Case does not matter. A list given here replaces the default.',
  },
  'heartbeat.interval': {
    type: 'duration',
    unit: 'duration',
    default: '2s',
    min: 100,
    max: 3_600_000,
    description: 'How often an idle source is made to prove that it is idle; Progress advances with it.',
  },
  'publication.column.lists': {
    type: 'boolean',
    unit: 'true or false',
    default: true,
    description:
      'Leave dropped columns out of what Postgres sends. While a table is published with a column list, Postgres refuses DROP COLUMN and ALTER COLUMN TYPE on the columns in it: with `false` Postgres sends all columns, the reader drops them, and migrations need no ceremony.',
  },
  'publication.interval': {
    type: 'duration',
    unit: 'duration',
    default: '10s',
    min: 500,
    max: 86_400_000,
    description:
      'How often the publications are compared with source.tables: new tables join, and what somebody altered is put right.',
  },
  'status.interval': {
    type: 'duration',
    unit: 'duration',
    default: '5s',
    min: 100,
    max: 60_000,
    description: 'How often the slot hears from us at least. Keep it well inside wal_sender_timeout.',
  },
  values: {
    type: 'string',
    unit: 'form',
    default: 'auto',
    oneOf: ['auto', 'binary', 'text'],
    description:
      'Form in which Postgres sends values. `auto`: binary, or text while a tracked column has a type whose binary form Tidemark does not know (docs/types.md). `binary` parks such tables instead; `text` costs CPU on both sides.',
  },
  'snapshot.mode': {
    type: 'string',
    unit: 'choice',
    default: 'initial',
    oneOf: ['initial', 'never'],
    description:
      'What happens to rows that are in a table before the slot is, or before the table joins: `initial` reads them beside the stream, `never` leaves them out. `tidemark snapshot start` works with both.',
  },
  'snapshot.chunk.rows': {
    type: 'integer',
    unit: 'rows',
    default: 10_000,
    min: 1,
    max: 1_000_000,
    description: 'Rows that one chunk of a snapshot holds at most.',
  },
  'snapshot.chunk.bytes': {
    type: 'bytes',
    unit: 'bytes',
    default: '4MiB',
    min: 1024,
    max: 2 ** 28,
    description:
      'Bytes that one chunk of a snapshot holds at most, beside its last row; it is in memory, and published, as a whole.',
  },
} as const satisfies FieldTable;

const ownKafkaFields = {
  brokers: {
    type: 'list',
    unit: 'addresses',
    form: hostAndPort,
    description: 'Brokers to ask first.',
  },
  'client.id': { type: 'string', unit: 'name', default: 'tidemark', description: 'Name in broker logs.' },
  'sasl.mechanism': {
    type: 'string',
    unit: 'mechanism',
    default: null,
    oneOf: ['plain', 'scram-sha-256', 'scram-sha-512'],
    description: 'How to log in; absent for no login.',
  },
  'sasl.username': { type: 'string', unit: 'name', default: null, description: 'Name for SASL.' },
  'sasl.password': { type: 'secret', unit: 'secret', default: null, description: 'Password for SASL.' },
  'topic.prefix': {
    type: 'string',
    unit: 'name',
    default: null,
    defaultText: 'source.id',
    form: {
      pattern: /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$/,
      says: 'letters, digits, ., _ and -, at most 100',
    },
    description:
      'Topics are `<prefix>.<schema>.<table>`, `<prefix>.progress`, `<prefix>.parked` and `<prefix>.quarantine`.',
  },
  'topic.partitions': {
    type: 'integer',
    unit: 'partitions',
    default: 4,
    min: 1,
    max: 10_000,
    description: 'Partitions of a change topic when it is created. Never changes within a topic generation.',
  },
  'topic.replication.factor': {
    type: 'integer',
    unit: 'brokers',
    default: 3,
    min: 1,
    max: 32_767,
    description: 'Copies of each partition when a topic is created.',
  },
  'topic.min.insync.replicas': {
    type: 'integer',
    unit: 'brokers',
    default: 2,
    min: 1,
    max: 32_767,
    description: 'Copies that must have a record before it counts. At most topic.replication.factor.',
  },
  'topic.retention': {
    type: 'duration',
    unit: 'duration',
    default: '7d',
    min: 60_000,
    description: 'How long change topics keep records: how long a destination may be down.',
  },
  'row.max.bytes': {
    type: 'bytes',
    unit: 'bytes',
    default: '64MiB',
    min: 1024,
    max: 2 ** 30,
    description:
      'Largest encoded row, on topics, producer and fetch alike. A larger one stops the reader (TM308); the slot keeps it.',
  },
  compression: {
    type: 'string',
    unit: 'codec',
    default: 'none',
    oneOf: ['none', 'gzip', 'zstd'],
    description: 'Compression of record batches.',
  },
  producer: {
    type: 'string',
    unit: 'name',
    default: 'record-batches',
    oneOf: ['record-batches', 'kafkajs'],
    description:
      'Client that writes the records: our own record batches, or kafkajs (several times the CPU) to fall back to.',
  },
  'batch.max.bytes': {
    type: 'bytes',
    unit: 'bytes',
    default: '2MiB',
    min: 1024,
    max: 2 ** 30,
    description:
      'Encoded bytes at which a Kafka transaction is closed; up to four times as many while the one before is still being committed.',
  },
  'transaction.timeout': {
    type: 'duration',
    unit: 'duration',
    default: '60s',
    min: 1000,
    max: 24 * 86_400_000,
    description:
      "When the broker aborts an open transaction. At most the broker's transaction.max.timeout.ms.",
  },
  'session.timeout': {
    type: 'duration',
    unit: 'duration',
    default: '10s',
    min: 1000,
    max: 24 * 86_400_000,
    description: 'When the broker takes a silent consumer out of its group.',
  },
} as const satisfies FieldTable;

const ownRegistryFields = {
  url: {
    type: 'secret',
    unit: 'URL',
    form: { pattern: /^https?:\/\/[^\s]+$/, says: 'an http or https URL' },
    description: 'Schema Registry. A name and password in the URL are taken as username and password.',
  },
  username: { type: 'string', unit: 'name', default: null, description: 'Name for basic authentication.' },
  password: {
    type: 'secret',
    unit: 'secret',
    default: null,
    description: 'Password for basic authentication.',
  },
  compatibility: {
    type: 'string',
    unit: 'level',
    default: 'BACKWARD',
    oneOf: [
      'NONE',
      'BACKWARD',
      'BACKWARD_TRANSITIVE',
      'FORWARD',
      'FORWARD_TRANSITIVE',
      'FULL',
      'FULL_TRANSITIVE',
    ],
    description:
      "Compatibility of the change topics' subjects. A change of shape that breaks it follows the table rule's on.incompatible.change.",
  },
} as const satisfies FieldTable;

const privacyFields = {
  'hash.key': {
    type: 'secret',
    unit: 'secret',
    default: null,
    form: { pattern: /^[\s\S]{32,}$/, says: 'at least 32 characters' },
    description:
      'Key of the policy hash; required where a column has it. Its id stands in the schemas of such tables, so another key is a change of their shape.',
  },
} as const satisfies FieldTable;

const deliverFields = {
  'instances.directory': {
    type: 'path',
    unit: 'folder',
    default: 'connectors/instances',
    description:
      'Folder with the destinations, one `*.json` file each; files that end in `.example.json` are not read. The default may be missing, a folder named here may not.',
  },
  'memory.bytes': {
    type: 'bytes',
    unit: 'bytes',
    default: '256MiB',
    min: 0,
    description:
      'Rows that wait for their Window are kept in memory up to this size, those of all destinations of a process together; what a Window needs beyond it is spilled.',
  },
  'spill.directory': {
    type: 'path',
    unit: 'folder',
    default: '.tidemark/spill',
    description: 'Where open Windows go that do not fit into memory.',
  },
  'spill.max.bytes': {
    type: 'bytes',
    unit: 'bytes',
    default: '20GiB',
    min: 2 ** 20,
    description: 'Disk that one destination may use there.',
  },
  'spill.memory.bytes': {
    type: 'bytes',
    unit: 'bytes',
    default: '256MiB',
    min: 2 ** 24,
    description: 'Memory that one destination may use to sort what is spilled, before that goes to disk too.',
  },
} as const satisfies FieldTable;

const retainFields = {
  enabled: {
    type: 'boolean',
    unit: 'true or false',
    default: false,
    description:
      'Evict rows that are delivered, under the policies in the source database (docs/retention.md). The table of Tombstones is streamed too. Run `tidemark retain setup` first.',
  },
  url: {
    type: 'secret',
    unit: 'URL',
    default: null,
    defaultText: 'the connection of source.*',
    description:
      'Connection to the source database as a member of role tidemark_retention that may read and delete in the tables concerned.',
  },
  'setup.url': {
    type: 'secret',
    unit: 'URL',
    default: null,
    defaultText: 'retain.url',
    description: 'Connection of a role that may create schemas and roles, for `tidemark retain setup` alone.',
  },
  'officer.url': {
    type: 'secret',
    unit: 'URL',
    default: null,
    defaultText: 'retain.setup.url',
    description:
      'Connection of whoever places legal holds and grants overrides (`tidemark retain hold`, `retain override`): a member of role tidemark_retention_officer that may read the tables concerned.',
  },
  interval: {
    type: 'duration',
    unit: 'duration',
    default: '1m',
    min: 100,
    max: 86_400_000,
    description: 'How often rows that may go are looked for.',
  },
  'mark.rows': {
    type: 'integer',
    unit: 'rows',
    default: 20_000,
    min: 1,
    max: 1_000_000,
    description:
      'Rows of one table that wait for their proof of delivery at a time, in memory. As many go in a cadence of the required destinations.',
  },
  'unmatched.deletes': {
    type: 'string',
    unit: 'name',
    default: 'stop',
    oneOf: ['stop', 'delete'],
    description:
      'What the reader does with a transaction that deletes rows and has Tombstones of other rows of the same table: it stops (TM246), or takes them for deletes of the application.',
  },
  'evidence.key': {
    type: 'secret',
    unit: 'secret',
    default: null,
    description:
      'Ed25519 private key (PEM, PKCS #8) that `tidemark retain evidence` signs with, as `openssl genpkey -algorithm ed25519` writes it: refer to its file.',
  },
  'tenants.table': {
    type: 'string',
    unit: 'table',
    default: null,
    form: tablePattern,
    description:
      'Table with a row for each tenant that says how long its rows stay, such as `app.organizations`. Without it only tables without a tenant column can be evicted.',
  },
  'tenants.key': {
    type: 'string',
    unit: 'column name',
    default: 'id',
    description: 'Its column with the tenant.',
  },
  'tenants.days': {
    type: 'string',
    unit: 'column name',
    default: 'data_retention_days',
    description:
      'Its column with the days that rows of the tenant stay; NULL: for ever. 0 and less are refused (TM504).',
  },
} as const satisfies FieldTable;

const observeFields = {
  'metrics.host': {
    type: 'string',
    unit: 'address',
    default: '127.0.0.1',
    description: 'Address on which metrics are served.',
  },
  'metrics.port': {
    type: 'integer',
    unit: 'TCP port',
    default: null,
    min: 0,
    max: 65535,
    description: 'Port on which metrics are served; absent: not served. 0 takes any free port.',
  },
} as const satisfies FieldTable;

/** The keys of tidemark.yaml. */
export const configurationFields = {
  ...underPrefix('source', { ...ownSourceFields, ...endpointFields }),
  ...underPrefix('kafka', { ...ownKafkaFields, ...tlsFields }),
  ...underPrefix('registry', {
    ...ownRegistryFields,
    ...tlsFields,
    'tls.mode': { ...tlsFields['tls.mode'], defaultText: '`verify-full` for https, `disable` for http' },
  }),
  ...underPrefix('control', endpointFields),
  ...underPrefix('privacy', privacyFields),
  ...underPrefix('deliver', deliverFields),
  ...underPrefix('retain', retainFields),
  ...underPrefix('observe', observeFields),
} as const satisfies FieldTable;

/** The keys of one rule of source.tables, where it is a mapping. `columns.<name>` is besides: keep or drop. */
export const tableRuleFields = {
  pattern: {
    type: 'string',
    unit: 'pattern',
    form: tablePattern,
    description:
      '`schema.table` or `schema.*`. Names are written as in the catalogue; one with a dot, comma, star, quote or space in it is in double quotes: `app."Order Lines"`.',
  },
  'tenant.column': {
    type: 'string',
    unit: 'column name',
    default: null,
    defaultText: 'source.tenant.column',
    description: 'Column that holds the tenant in these tables; `null` says that they have none.',
  },
  'on.incompatible.change': {
    type: 'string',
    unit: 'choice',
    default: 'park',
    oneOf: incompatibleChanges,
    description:
      'What a change of shape does that breaks registry.compatibility, or whose effect on existing rows the stream does not tell. `park`: the table alone stops, its raw changes are kept. `evolve`: it goes on as a new major version; existing rows in destinations are cast where they can be. `text`: a column that got another type is carried as its Postgres text from then on, in a compatible next version; what that does not solve parks.',
  },
  'snapshot.mode': {
    type: 'string',
    unit: 'choice',
    default: null,
    defaultText: 'source.snapshot.mode',
    oneOf: ['initial', 'never'],
    description: 'Whether rows that are in these tables before they join are read.',
  },
} as const satisfies FieldTable;

/** The keys that every instance file has beside its sink's own. `cadence.<schema>.<table>` is besides. */
export const destinationFields = {
  'connector.class': { type: 'string', unit: 'sink', description: 'Kind of destination.' },
  tables: {
    type: 'list',
    unit: 'table patterns',
    form: tablePattern,
    description: 'Tables it receives, comma-separated: `schema.table` or `schema.*`.',
  },
  tenant: {
    type: 'string',
    unit: 'tenant',
    default: null,
    description:
      "The one tenant whose rows it gets, as its column has it; absent: everybody's. Every table needs the tenant column in its primary key or replica identity.",
  },
  cadence: {
    type: 'cadence',
    unit: 'duration',
    default: '15m',
    min: 0,
    max: 30 * 86_400_000,
    description: 'How much time a Window covers; `continuous` merges as soon as something is there.',
  },
  'window.max.records': {
    type: 'integer',
    unit: 'Changes',
    default: 100_000,
    min: 1,
    max: 2 ** 31 - 1,
    description: 'A Window that reached this many Changes ends at the next transaction boundary.',
  },
  'quarantine.max.rows': {
    type: 'integer',
    unit: 'rows',
    default: 1000,
    min: 0,
    max: 100_000,
    description:
      'Rows of one Unit that may be in Quarantine. One more, and the Unit stops: so many refusals are about the destination, not about rows.',
  },
  'pause.after': {
    type: 'duration',
    unit: 'duration',
    default: null,
    defaultText: 'what the kind of sink says: 1 day for webhook, never for the others',
    min: 0,
    max: 365 * 86_400_000,
    description:
      'A destination that fails for this long without a success in between is paused, until `tidemark destination resume`; 0: never.',
  },
} as const satisfies FieldTable;

export type ConfigurationValues = Values<typeof configurationFields>;
