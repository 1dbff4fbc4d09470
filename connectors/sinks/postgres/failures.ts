/**
 * Every failure of this destination, classed in one table by SQLSTATE. Postgres quotes row values in `detail`,
 * `where` and some messages, so none of the three is kept: an error carries table, SQLSTATE and, where the server
 * names them, column and constraint.
 */

import { TidemarkError } from '../../../src/connector/failure.ts';
import { type TableId, tableName } from '../../../src/connector/shape.ts';
import { quoteTable } from './quote.ts';

type Code = ConstructorParameters<typeof TidemarkError>[0];

interface FailureClass {
  /** Prefix of the SQLSTATE; the first line that fits counts. */
  state: string;
  code: Code;
  meaning: string;
  remedy?: string;
}

const classes: FailureClass[] = [
  {
    state: '53100',
    code: 'TM401',
    meaning: 'its disk is full',
    remedy: 'Free disk space on the destination; delivery goes on by itself.',
  },
  {
    state: '53300',
    code: 'TM401',
    meaning: 'it has no free connection',
    remedy: 'Raise max_connections on the destination, or close other sessions.',
  },
  { state: '53', code: 'TM401', meaning: 'it is out of resources' },
  { state: '08', code: 'TM401', meaning: 'the connection failed' },
  { state: '57P', code: 'TM401', meaning: 'it is shutting down, starting or ended our session' },
  {
    state: '57014',
    code: 'TM401',
    meaning: 'a statement ran into statement.timeout or was cancelled',
    remedy: 'If it repeats, raise statement.timeout in the instance file.',
  },
  { state: '25P03', code: 'TM401', meaning: 'the session idled too long within a transaction' },
  {
    state: '25P04',
    code: 'TM401',
    meaning: 'the transaction ran into transaction_timeout',
    remedy: 'Raise transaction_timeout for our role.',
  },
  {
    state: '25006',
    code: 'TM401',
    meaning: 'it is read-only (a standby, or default_transaction_read_only)',
    remedy: 'Point connection.url at the primary.',
  },
  { state: '40', code: 'TM401', meaning: 'it rolled the merge back because of a concurrent one' },
  {
    state: '55P03',
    code: 'TM401',
    meaning: 'a lock was not granted within lock.timeout',
    remedy:
      'Look for a long transaction on the destination’s tables; raise lock.timeout if readers need that long.',
  },
  { state: '55006', code: 'TM401', meaning: 'an object is in use' },
  {
    state: '55000',
    code: 'TM401',
    meaning: 'the database accepts no connections, or an object is not ready',
    remedy: 'ALTER DATABASE … ALLOW_CONNECTIONS true; delivery goes on by itself.',
  },
  { state: '58', code: 'TM401', meaning: 'its operating system reported an error' },
  { state: '28', code: 'TM402', meaning: 'it refused the credentials' },
  {
    state: '3D000',
    code: 'TM402',
    meaning: 'the database does not exist',
    remedy: 'CREATE DATABASE, or correct connection.database.',
  },
  { state: '42501', code: 'TM402', meaning: 'a right is missing' },
  {
    state: '42704',
    code: 'TM405',
    meaning: 'a type is missing',
    remedy:
      'Create the type (domain, composite type or extension) in the destination as it is in the source.',
  },
  {
    state: '2BP01',
    code: 'TM405',
    meaning: 'something of your own (a view, say) depends on a column that the source dropped or retyped',
    remedy:
      'Drop or change what depends on the column (the server’s log names it); delivery goes on by itself.',
  },
  { state: '0A', code: 'TM405', meaning: 'it does not support the operation' },
  { state: '2', code: 'TM405', meaning: 'it refused a row' },
  {
    state: 'P0',
    code: 'TM405',
    meaning: 'a trigger of your own refused a row',
    remedy: 'Change or drop the trigger on the destination’s table; delivery goes on by itself.',
  },
  { state: '42', code: 'TM405', meaning: 'it refused a statement' },
  { state: '3F', code: 'TM405', meaning: 'a schema is missing' },
  { state: '54', code: 'TM405', meaning: 'a limit of Postgres is exceeded' },
];

const sqlStateText = /^[0-9A-Z]{5}$/;

interface ServerError {
  code?: unknown;
  schema?: unknown;
  table?: unknown;
  column?: unknown;
  constraint?: unknown;
}

/** SQLSTATE of an error that the server sent, or null (socket errors have codes such as ECONNRESET). */
export function sqlState(error: unknown): string | null {
  const code = (error as ServerError | null)?.code;
  return typeof code === 'string' && sqlStateText.test(code) && 'severity' in (error as object) ? code : null;
}

/** True where the session cannot be used any more. */
export function endsSession(error: unknown): boolean {
  const state = sqlState(error);
  if (state === null) return true;
  return state.startsWith('08') || state.startsWith('57P') || state === '25P03' || state === '25P04';
}

/**
 * What a Session throws: the server's or socket's own error, not yet classed. Kept apart from errors of the Window's
 * own rows (the spill store's, say), which pass through unchanged.
 */
export class SessionError extends Error {
  readonly raw: unknown;
  /** How many statements of the batch had completed: the number of the one that failed, from 0. */
  readonly completed: number;

  constructor(raw: unknown, completed: number) {
    super(sqlState(raw) === null ? 'connection failed' : `SQLSTATE ${sqlState(raw)}`);
    this.name = 'SessionError';
    this.raw = raw;
    this.completed = completed;
  }
}

/** Of what a row has in it: bad values, constraints, what triggers raise, an index entry that is too large. */
const aboutRows = ['22', '23', 'P0', '54000'];
/** May depend on the order in which rows are written: unique and exclusion indexes, references, triggers. */
const aboutOrder = ['23505', '23P01', '23503', 'P0'];

function startsWithAny(state: string | null, prefixes: readonly string[]): boolean {
  return state !== null && prefixes.some((prefix) => state.startsWith(prefix));
}

/** Whether the server refused what rows have in them. */
export function isAboutRows(thrown: unknown): thrown is SessionError {
  return thrown instanceof SessionError && startsWithAny(sqlState(thrown.raw), aboutRows);
}

/** Rows that the server refused, not yet known which: TM405 for the table, unless they are found. */
export class RefusedStatement extends TidemarkError {
  /** The destination's name of the table whose rows they are; null where the server says nothing of it. */
  readonly table: TableId | null;
  /** By a deferred constraint: its quoted name, or null where the server does not say. */
  readonly constraint: string | null;
  readonly atCommit: boolean;
  /** Another order of writing could help. */
  readonly ordered: boolean;

  constructor(refusal: TidemarkError, error: SessionError, table: TableId | null, atCommit: boolean) {
    super('TM405', refusal.message, { cause: refusal.cause, remedy: refusal.remedy });
    const { schema, constraint } = error.raw as ServerError;
    const named = atCommit && typeof schema === 'string' && typeof constraint === 'string';
    this.constraint = named ? quoteTable({ schema, name: constraint }) : null;
    this.table = table;
    this.atCommit = atCommit;
    this.ordered = startsWithAny(sqlState(error.raw), aboutOrder);
  }
}

/** As asSinkFailure, for a statement that writes rows of `table`. */
export function asRowFailure(thrown: unknown, destination: string, table: TableId): unknown {
  const failure = asSinkFailure(thrown, destination, [table]);
  return isAboutRows(thrown) && failure instanceof TidemarkError
    ? new RefusedStatement(failure, thrown, table, false)
    : failure;
}

/** As asSinkFailure, for COMMIT. */
export function asCommitFailure(thrown: unknown, destination: string): unknown {
  if (!isAboutRows(thrown)) return thrown;
  const { schema, table } = thrown.raw as ServerError;
  const named = typeof schema === 'string' && typeof table === 'string' ? { schema, name: table } : null;
  const failure = asSinkFailure(thrown, destination, named ? [named] : []) as TidemarkError;
  return new RefusedStatement(failure, thrown, named, true);
}

/** Why the server refused one row: its own code, and the names of what refused it. */
export function refusalReason(thrown: SessionError): string {
  const state = sqlState(thrown.raw)!;
  const found = classes.find((entry) => state.startsWith(entry.state));
  return `${found?.meaning ?? 'Postgres failed'}, SQLSTATE ${state}${place(thrown.raw as ServerError)}`;
}

/**
 * A SessionError as an operator meets it; everything else passes through.
 * @param tables the tables it may concern
 */
export function asSinkFailure(
  thrown: unknown,
  destination: string,
  tables: readonly TableId[] = [],
): unknown {
  if (!(thrown instanceof SessionError)) return thrown;
  const error = thrown.raw;
  const state = sqlState(error);
  const about = tables.length > 0 ? ` (${tables.map(tableName).join(', ')})` : '';
  if (state === null) {
    const code = (error as { code?: unknown } | null)?.code;
    const refusal = refusedBeforeLogin(error);
    if (refusal)
      return new TidemarkError('TM402', `${destination}: ${refusal.what}`, { remedy: refusal.remedy });
    const detail =
      typeof code === 'string' ? code : error instanceof Error ? safeMessage(error) : 'unknown failure';
    return new TidemarkError('TM401', `${destination}: the connection failed: ${detail}`, {
      cause: redact(error),
    });
  }
  const found = classes.find((entry) => state.startsWith(entry.state));
  return new TidemarkError(
    found?.code ?? 'TM901',
    `${destination}: ${found?.meaning ?? 'Postgres failed'}${about}, SQLSTATE ${state}${place(error as ServerError)}`,
    { cause: redact(error), ...(found?.remedy === undefined ? {} : { remedy: found.remedy }) },
  );
}

/** Certificates and passwords that fail on our side of the connection, without a SQLSTATE. */
function refusedBeforeLogin(error: unknown): { what: string; remedy: string } | null {
  if (!(error instanceof Error)) return null;
  const code = String((error as { code?: unknown }).code ?? '');
  if (error.message.startsWith('SASL')) {
    return {
      what: 'the password was not accepted',
      remedy: 'Set connection.password to the role’s password.',
    };
  }
  if (/CERT|^ERR_(TLS|SSL|OSSL)|^EPROTO$/.test(code) || /support SSL/.test(error.message)) {
    return {
      what: `TLS failed${code ? `: ${code}` : ': the server has no TLS'}`,
      remedy: 'Set tls.ca to the authority of the server’s certificate, or change tls.mode.',
    };
  }
  return null;
}

function place(error: ServerError): string {
  const parts: string[] = [];
  if (typeof error.column === 'string') parts.push(`column ${JSON.stringify(error.column)}`);
  if (typeof error.constraint === 'string') parts.push(`constraint ${JSON.stringify(error.constraint)}`);
  return parts.length > 0 ? `, ${parts.join(', ')}` : '';
}

/** pg's own connection errors ("Connection terminated unexpectedly") hold no data. */
function safeMessage(error: Error): string {
  return /^(Connection|Client|timeout|The server|SASL)/i.test(error.message) ? error.message : error.name;
}

/** What may stand as `cause`: whoever prints it must not meet a value. */
function redact(error: unknown): Error {
  const state = sqlState(error);
  const kept = new Error(
    state === null ? (error instanceof Error ? safeMessage(error) : 'unknown') : `SQLSTATE ${state}`,
  );
  if (error instanceof Error && error.stack) kept.stack = error.stack.slice(error.stack.indexOf('\n    at '));
  return kept;
}
