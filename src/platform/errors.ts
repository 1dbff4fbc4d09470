/**
 * Every error that an operator can meet: a code, a retry class, a remedy and its cause. This file is the manual
 * page: docs/errors.md is generated from it. Codes are never reused.
 *
 * Retry classes: `transient` is tried again with backoff for ever; `operator` stops the path until somebody acts;
 * `data` concerns one row or table and parks or quarantines it; `bug` stops, because an invariant did not hold.
 */
export type RetryClass = 'transient' | 'operator' | 'data' | 'bug';

interface ErrorEntry {
  retry: RetryClass;
  /** What happened, for somebody who never saw the code. */
  meaning: string;
  /** What the operator should do. */
  remedy: string;
}

export const errorCatalogue = {
  // 1xx: configuration and prerequisites
  TM101: {
    retry: 'operator',
    meaning:
      'A configuration file is missing, unreadable or has a wrong key or value; or a command was told something that it does not know.',
    remedy:
      'Correct what the message names: docs/configuration.md lists every key, `tidemark --help` every option.',
  },
  TM102: {
    retry: 'operator',
    meaning: 'An env: or file: reference cannot be resolved.',
    remedy: 'Set the environment variable or create the file that the message names.',
  },
  TM103: {
    retry: 'operator',
    meaning: 'A program this command needs is not installed, or is too old.',
    remedy: 'Run the line that the message gives.',
  },
  // 2xx: the source
  TM201: {
    retry: 'transient',
    meaning: 'The source database does not answer.',
    remedy: 'Check source.url, the server and the network; the reader goes on by itself when it answers.',
  },
  TM202: {
    retry: 'operator',
    meaning: 'The source lacks a setting, a grant, the slot or the publication.',
    remedy: 'Run the statement in the message, then `tidemark check`.',
  },
  TM203: {
    retry: 'operator',
    meaning:
      'The slot has confirmed more than the last Progress covers: Kafka lost records or the slot was used by somebody else.',
    remedy:
      'Changes are missing from Kafka. Restore Kafka, or run `tidemark teardown --slot` and start again; destinations must then be rebuilt.',
  },
  TM204: {
    retry: 'operator',
    meaning: 'The replication slot is missing, invalidated or lost its WAL.',
    remedy:
      'Changes since the last Progress cannot be read. Run `tidemark teardown --slot` and start again; destinations must then be rebuilt.',
  },
  TM205: {
    retry: 'operator',
    meaning: 'The source is another cluster or another timeline than the one Progress was written for.',
    remedy:
      'Point source.url at the right server. If it is the right one, run `tidemark teardown --slot` and start again; destinations must then be rebuilt.',
  },
  TM206: {
    retry: 'bug',
    meaning: 'pgoutput sent something that this version does not know or that breaks the protocol.',
    remedy: 'The reader stops rather than guess. Report the message type in the error.',
  },
  TM207: {
    retry: 'transient',
    meaning: 'Another process reads the slot.',
    remedy: 'Stop the other reader; this one takes over when the slot is free.',
  },
  TM208: {
    retry: 'data',
    meaning:
      'A table has a type this version cannot represent, or shares its topic with another table. The table is parked.',
    remedy:
      'Its raw changes are kept in the parked topic. `tidemark status` names the reason; once it is gone, `tidemark resume <table>` publishes them.',
  },
  TM210: {
    retry: 'transient',
    meaning: 'The stream holds a type whose binary form Tidemark does not know.',
    remedy:
      'Nothing: the reader starts over from Progress and reads values as text. `tidemark check` names the columns.',
  },
  TM231: {
    retry: 'data',
    meaning:
      "The shape of a table changed in a way that older readers of its topic cannot follow, or whose effect on existing rows the stream does not tell, and the table's on.incompatible.change is park, or is text, which does not solve it. The table is parked.",
    remedy:
      'Its raw changes are kept in the parked topic; everything else goes on. `tidemark resume <table>` publishes them in order as a new major version (`--as text`: with the changed column as text, compatible); run `tidemark verify` afterwards. To let such changes through by themselves, set on.incompatible.change: evolve or text in the table’s rule.',
  },
  TM240: {
    retry: 'operator',
    meaning:
      'privacy.hash.key is not the key that a table was published with, so its hashes cannot be compared.',
    remedy:
      'Give back the key whose id the message names; after a rotation, verify once the table is published under the new key.',
  },
  TM241: {
    retry: 'operator',
    meaning:
      'A standby was promoted, or a backup restored, that lacks changes which are in Kafka already: the lost tail of the old primary.',
    remedy:
      'Destinations hold rows that the source does not know. Run `tidemark teardown --slot` and start again; destinations must then be rebuilt. From Postgres 17 on, synchronized_standby_slots keeps it from happening.',
  },
  TM242: {
    retry: 'operator',
    meaning: 'The source has less WAL than Kafka has seen of it: it was put back to an older state.',
    remedy:
      'Point source.url at the server that went on. If the older state is meant, run `tidemark teardown --slot` and start again; destinations must then be rebuilt.',
  },
  TM243: {
    retry: 'operator',
    meaning: 'The slot keeps nearly as much WAL as source.wal.budget.bytes allows, or more.',
    remedy:
      'Find out what holds the reader up (`tidemark status`), or give the source more disk and the slot a larger budget.',
  },
  TM244: {
    retry: 'operator',
    meaning:
      'The slot kept more WAL than source.wal.budget.bytes and was dropped, as source.wal.budget.action says.',
    remedy:
      'Changes since the last Progress cannot be read. Run `tidemark teardown --slot` and start again; destinations must then be rebuilt.',
  },
  TM245: {
    retry: 'operator',
    meaning:
      'Somebody took a table, column or operation out of the publication while the slot was in use: its changes since then may be missing.',
    remedy:
      'If it should not be replicated, say so in source.tables. Else run `tidemark teardown --slot` and start again; destinations must then be rebuilt.',
  },
  TM246: {
    retry: 'operator',
    meaning:
      'A transaction has Tombstones whose rows it does not delete, and deletes other rows of the same table. If these are the rows that the Tombstones are about, they must stay at the destinations; if not, they must go. The reader stops before any destination is told.',
    remedy:
      'Ask whoever wrote to tidemark_retention.cold_storage_archive. If the rows were meant to be deleted everywhere: `retain.unmatched.deletes: delete` until the reader is past that transaction. If the retention service wrote them, keep them and report it.',
  },
  TM221: {
    retry: 'operator',
    meaning:
      'A table without a key is replaced whole by its snapshot, in every destination: --where would lose the rest, and --for cannot be.',
    remedy: '`tidemark snapshot start <table>` without --where and --for; or give the table a primary key.',
  },
  TM222: {
    retry: 'operator',
    meaning: 'The source is a standby: a snapshot writes marks into the WAL, which only a primary can.',
    remedy:
      'Point source.url at the primary until the snapshot is done, or set source.snapshot.mode: never and load the destinations yourself.',
  },
  TM223: {
    retry: 'operator',
    meaning: 'A snapshot cannot go on, or is not complete yet.',
    remedy: '`tidemark snapshot status` says where each stands.',
  },
  TM224: {
    retry: 'operator',
    meaning: 'A snapshot request does not fit: its table, its condition, or the snapshot that runs already.',
    remedy: 'Correct what the message names; `tidemark snapshot status` lists the snapshots.',
  },
  TM225: {
    retry: 'operator',
    meaning: 'A table whose key is hashed has no snapshot: how far it has come would tell keys.',
    remedy:
      'Load the rows from before the slot yourself and run `tidemark snapshot cancel <table>`, or keep the key column.',
  },
  TM226: {
    retry: 'operator',
    meaning:
      'Rows of a table have values that were never in its stream: of columns that are published, or leave Postgres as they are, only since; or rows that a partition brought along to a table without initial snapshots. Nothing of the table is evicted.',
    remedy: '`tidemark snapshot start <table>` reads its rows.',
  },
  // 3xx: Kafka and the registry
  TM301: {
    retry: 'transient',
    meaning: 'Kafka does not answer or refused a request that may succeed later.',
    remedy: 'Check the brokers; the pipeline goes on by itself from the last Progress.',
  },
  TM302: {
    retry: 'operator',
    meaning: 'Another reader with the same source id took over (this one was fenced).',
    remedy: 'Run one reader per source. This process stops.',
  },
  TM303: {
    retry: 'operator',
    meaning:
      'A topic does not fit: partitions, retention, cleanup or size limits differ from what Tidemark needs.',
    remedy: 'Run the command in the message.',
  },
  TM304: {
    retry: 'transient',
    meaning: 'The Schema Registry does not answer.',
    remedy: 'Check registry.url and the server; the pipeline waits.',
  },
  TM305: {
    retry: 'operator',
    meaning: 'The Schema Registry refused a schema.',
    remedy: 'Look at the subject that the message names.',
  },
  TM306: {
    retry: 'operator',
    meaning: 'A partition holds less than the last Progress says: Kafka lost records.',
    remedy:
      'Restore the topic, or run `tidemark teardown --slot` and start again; destinations must then be rebuilt.',
  },
  TM307: {
    retry: 'operator',
    meaning: 'Kafka expired records that a destination had not yet received.',
    remedy:
      'Kafka alone cannot bring the destination up to date: `tidemark destination skip <name> --to now --yes`, then `tidemark destination resync <name>`; and raise the topic retention.',
  },
  TM308: {
    retry: 'operator',
    meaning: 'A row is larger than kafka.row.max.bytes. The reader stops.',
    remedy:
      "Raise kafka.row.max.bytes and the topics' max.message.bytes (`tidemark check` prints the command), then start again; the slot keeps the row.",
  },
  TM309: {
    retry: 'transient',
    meaning:
      'A topic of ours has an open transaction that the reader cannot decide: it is of another producer, or Kafka has forgotten which one wrote it. Consumers see nothing behind it.',
    remedy:
      'Run the commands in the message: they name the producer and end its transaction. The reader goes on by itself then.',
  },
  // 4xx: delivery
  TM401: {
    retry: 'transient',
    meaning: 'A destination does not answer.',
    remedy: 'Check the destination; delivery is retried with backoff and the Floor is held.',
  },
  TM402: {
    retry: 'operator',
    meaning: 'A destination refused the credentials or a right is missing.',
    remedy: 'Grant what the message names, or renew the credentials.',
  },
  TM403: {
    retry: 'operator',
    meaning: 'Another worker took over this Unit (this one was fenced).',
    remedy: 'Nothing: the new owner goes on. If it repeats, look for two workers fighting over a Unit.',
  },
  TM404: {
    retry: 'operator',
    meaning:
      'A destination holds an older Position than the ledger says: it was restored or changed by hand.',
    remedy:
      '`tidemark destination replay <name> --from held --yes` goes on from what it holds, as far as Kafka still has it.',
  },
  TM405: {
    retry: 'data',
    meaning: 'A destination refused a row or a table definition.',
    remedy: "The message names the table and the destination's own error code; mend the destination's table.",
  },
  TM406: {
    retry: 'operator',
    meaning: 'The window store is full or its disk failed.',
    remedy: 'Free disk space or raise deliver.spill.max.bytes.',
  },
  TM407: {
    retry: 'bug',
    meaning: 'An update left a column unchanged, but the destination has no row to take its value from.',
    remedy: 'The destination lost a row. Verify it, then rebuild it.',
  },
  TM408: {
    retry: 'operator',
    meaning: 'No worker delivers to this destination, or it does not reach the requested Position.',
    remedy: 'Start `tidemark run`, look at `tidemark status`, then try again.',
  },
  TM409: {
    retry: 'transient',
    meaning: 'The control database does not answer.',
    remedy: 'Check control.url; delivery goes on by itself when it answers.',
  },
  TM410: {
    retry: 'data',
    meaning: 'A destination refused rows for what is in them.',
    remedy:
      'They are kept in Quarantine and the rest goes on: `tidemark quarantine list` names them; mend the destination, then `tidemark quarantine replay`.',
  },
  TM411: {
    retry: 'operator',
    meaning: 'A destination is paused: by an operator, or because it failed for longer than pause.after.',
    remedy: '`tidemark destination resume <name>`, once what it was paused for is mended.',
  },
  TM412: {
    retry: 'operator',
    meaning: 'A destination refused more rows than quarantine.max.rows allows.',
    remedy:
      '`tidemark quarantine list` shows why. Mend the destination and replay or drop them; or raise quarantine.max.rows in its instance file.',
  },
  TM413: {
    retry: 'operator',
    meaning: 'A destination is bound to a tenant, and a table of it cannot be told apart by tenant.',
    remedy:
      'Leave the table out of the destination’s `tables`, or give it the tenant in its replica identity.',
  },
  TM414: {
    retry: 'operator',
    meaning:
      'A Unit has fallen behind by most of what Kafka keeps: what it has yet to read will expire before long.',
    remedy:
      'Mend or resume the destination; until then keep more: `kafka-configs.sh --alter --topic <topic> --add-config retention.ms=…` on its topics and on <prefix>.progress, and raise kafka.topic.retention.',
  },
  TM415: {
    retry: 'operator',
    meaning: 'The control schema is not that of this version: migrations are missing.',
    remedy:
      'Start `tidemark run` of this version once: it migrates the control schema, or says that a newer version did.',
  },
  TM416: {
    retry: 'operator',
    meaning:
      'A destination is bound to another tenant than before. It never got that tenant’s older rows, and from its mark on nobody would miss them.',
    remedy:
      'Give the tenant a destination of its own: an instance file of another name, and a place that is empty. Or set `tenant` back.',
  },
  // 5xx: retention
  TM501: {
    retry: 'operator',
    meaning: 'The retention schema is missing in the source database, or is not that of this version.',
    remedy: '`tidemark retain setup`, as a role that may create schemas and roles (retain.setup.url).',
  },
  TM502: {
    retry: 'operator',
    meaning:
      'A table with withheld columns (dropped, hashed or masked) has an eviction policy: their values would be lost with the row.',
    remedy:
      'Keep the columns, or list them in forfeit_columns of the table’s policy if nobody needs their values any more.',
  },
  TM503: {
    retry: 'operator',
    meaning:
      'A table that has an eviction policy cannot be evicted as it is. Nothing of it goes; other tables go on.',
    remedy: 'Do what the message says; `tidemark retain plan` asks again.',
  },
  TM504: {
    retry: 'operator',
    meaning:
      'Retention days of 0 or less: that would let rows go at once, and is refused. Nothing of these tenants is evicted.',
    remedy: 'Set the days to 1 or more; NULL keeps the rows for ever.',
  },
  TM505: {
    retry: 'operator',
    meaning: 'The role of retain.url lacks a right in the source database.',
    remedy: 'Run the statement in the message.',
  },
  TM506: {
    retry: 'transient',
    meaning: 'Another process evicts rows of this source.',
    remedy: 'Nothing: this one takes over when the other ends.',
  },
  TM507: {
    retry: 'transient',
    meaning: 'The source database failed while rows were evicted; the batch under way was undone whole.',
    remedy: 'Nothing: rows are marked again. `tidemark retain status` shows what goes on.',
  },
  TM508: {
    retry: 'operator',
    meaning:
      'A destination does not hand a row back as the source had it: nothing is evicted on its word, and the row is not recalled from it.',
    remedy: '`tidemark verify` the destination; recall the row from another one that its Tombstone names.',
  },
  TM509: {
    retry: 'operator',
    meaning:
      'Rows that were evicted are at destinations alone. After this step destinations have to be rebuilt from the source, which does not have them any more.',
    remedy:
      'Keep a copy of what each destination has, or bring the rows back first (`tidemark recall`); then say so: --reason "…".',
  },
  TM510: {
    retry: 'operator',
    meaning:
      'A destination holds less than it acknowledged (it was restored from a backup, or emptied), or the ledger does not agree with it. Nothing that it is to prove is evicted.',
    remedy:
      '`tidemark destination replay <name> --from held --yes` goes on from what it holds; `tidemark verify` it before anything is relied upon again.',
  },
  TM511: {
    retry: 'operator',
    meaning: 'What was to be erased is under a legal hold, which wins.',
    remedy:
      '`tidemark retain hold list` says whose it is and why. Once it is released, erase again: what was erased already stays erased.',
  },
  TM512: {
    retry: 'operator',
    meaning:
      'The clocks of the source database and of the retention service are more than an hour apart: how old a row is cannot be told. Nothing is evicted.',
    remedy: 'Set the clock that is wrong.',
  },
  // 9xx
  TM901: { retry: 'bug', meaning: 'Something happened that should not.', remedy: 'Report it with the log.' },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof errorCatalogue;

export class TidemarkError extends Error {
  readonly code: ErrorCode;
  readonly retry: RetryClass;
  /** The other side asked to be left alone for so long. */
  readonly retryAfterMs: number | null;
  /** What to do now; the catalogue's text unless the thrower knows better (an exact statement, a command line). */
  readonly remedy: string;

  constructor(
    code: ErrorCode,
    message: string,
    options: { remedy?: string; cause?: unknown; retry?: RetryClass; retryAfterMs?: number } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'TidemarkError';
    this.code = code;
    this.retry = options.retry ?? errorCatalogue[code].retry;
    this.retryAfterMs = options.retryAfterMs ?? null;
    this.remedy = options.remedy ?? errorCatalogue[code].remedy;
  }
}

/** Wraps what is not yet a TidemarkError; never repeats the cause's message, which may hold a cell value. */
export function asTidemarkError(error: unknown, code: ErrorCode = 'TM901'): TidemarkError {
  if (error instanceof TidemarkError) return error;
  return new TidemarkError(code, describeCause(error), { cause: error });
}

/** Error name and code of a foreign error, without its message where that could quote data. */
export function describeCause(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown failure';
  const code = (error as { code?: unknown }).code;
  const sqlState = typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code);
  // Postgres puts row values into `detail` and, for some states (class 22, 23), into the message itself.
  if (sqlState && /^2[23]/.test(code as string)) return `${error.name} SQLSTATE ${code}`;
  return typeof code === 'string' ? `${error.message} (${code})` : error.message;
}
