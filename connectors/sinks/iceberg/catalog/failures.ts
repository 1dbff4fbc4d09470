/**
 * What a catalog's answers mean for the pipeline, in one table. The server's own words are left out, since they may
 * quote a table's default values; its name for the error is kept.
 */
import { TidemarkError } from '../../../../src/connector/failure.ts';
import { isObject, type Json } from './exact-json.ts';

/** A requirement did not hold: somebody else changed the table. Nothing of the commit was applied. */
export class CommitConflict extends TidemarkError {
  constructor(what: string, options: { cause?: unknown } = {}) {
    super('TM401', `${what}: the table was changed by somebody else`, {
      remedy: 'Nothing: the Window is tried again. If it repeats, look for another writer of the table.',
      ...options,
    });
  }
}

/** The commit may have been applied, or may still be. Only the table itself can tell. */
export class CommitStateUnknown extends TidemarkError {
  constructor(what: string, reason: string, options: { cause?: unknown; retryAfterMs?: number } = {}) {
    super('TM401', `${what}: it is not known whether the catalog made it (${reason})`, {
      remedy: 'Check the catalog; the Window is tried again, and what it holds already is not written twice.',
      ...options,
    });
  }
}

export class NoSuchTable extends TidemarkError {
  constructor(what: string) {
    super('TM405', `${what}: the catalog has no such table`, {
      remedy: 'Restore the table in the catalog, or `tidemark destination resync` the destination.',
    });
  }
}

export class NoSuchNamespace extends TidemarkError {
  constructor(what: string) {
    super('TM402', `${what}: the catalog has no such namespace`, {
      remedy: 'Create the namespace, or let the user create namespaces.',
    });
  }
}

export class TableExists extends TidemarkError {
  constructor(what: string) {
    super('TM405', `${what}: something has that name already`, {
      remedy: 'Rename or drop what has the name, or give the destination another namespace.',
    });
  }
}

export class NamespaceNotEmpty extends TidemarkError {
  constructor(what: string) {
    super('TM405', `${what}: the namespace is not empty`, { remedy: 'Drop its tables first.' });
  }
}

/** What was asked decides what 404 and 409 mean. */
export type Subject = 'catalog' | 'namespace' | 'table' | 'creation' | 'commit' | 'namespace removal';

export interface HttpFailure {
  status: number;
  /** `type` of the error in the body (IcebergErrorResponse), where there is one. */
  type: string | null;
  retryAfterMs: number | null;
}

/** Nothing was done, and the same request may pass later. */
export function mayPass({ status }: HttpFailure, subject: Subject): boolean {
  // A 503 comes from proxies too, which may have lost an upstream that was working on it.
  return status === 429 || (subject !== 'commit' && (status === 408 || status >= 500) && status !== 501);
}

/** @param what what was tried, with the table's name */
export function failureOf(failure: HttpFailure, what: string, subject: Subject): TidemarkError {
  const { status, type, retryAfterMs } = failure;
  const label = `HTTP ${status}${type === null ? '' : ` ${type}`}`;
  const patience = retryAfterMs === null ? {} : { retryAfterMs };
  if (subject === 'commit' && (status >= 500 || status === 408) && status !== 501) {
    return new CommitStateUnknown(what, label, patience);
  }
  if (status === 409) return conflictOf(what, subject);
  if (status === 404) return missingOf(type, what, subject, label);
  if (mayPass(failure, subject)) return new TidemarkError('TM401', `${what}: ${label}`, patience);
  if (status === 401 || status === 419) {
    return new TidemarkError('TM402', `${what}: the catalog refused the credentials (${label})`, {
      remedy: 'Check the credentials in iceberg.catalog.*, or renew the token.',
    });
  }
  if (status === 403) {
    return new TidemarkError('TM402', `${what}: a right is missing (${label})`, {
      remedy:
        'Grant the user of iceberg.catalog.* to create namespaces and tables, and to load and commit them.',
    });
  }
  if (status >= 300 && status < 400) {
    return new TidemarkError('TM101', `${what}: a redirect, which is not followed (${label})`, {
      remedy: 'Set iceberg.catalog.uri to where the catalog is.',
    });
  }
  return new TidemarkError(subject === 'catalog' ? 'TM402' : 'TM405', `${what}: refused (${label})`, {
    remedy: 'Look at the catalog’s log for what it has against the request.',
  });
}

function conflictOf(what: string, subject: Subject): TidemarkError {
  if (subject === 'creation' || subject === 'namespace') return new TableExists(what);
  if (subject === 'namespace removal') return new NamespaceNotEmpty(what);
  return new CommitConflict(what);
}

function missingOf(type: string | null, what: string, subject: Subject, label: string): TidemarkError {
  if (type !== null && /Namespace/i.test(type)) return new NoSuchNamespace(what);
  if (subject === 'table' || subject === 'commit') return new NoSuchTable(what);
  if (subject === 'catalog') {
    return new TidemarkError('TM101', `${what}: ${label}`, {
      remedy: 'Correct iceberg.catalog.uri or iceberg.catalog.warehouse: the server has no catalog there.',
    });
  }
  return new NoSuchNamespace(what);
}

/** `error.type` of an IcebergErrorResponse, if it looks like a name. */
export function errorType(body: Json): string | null {
  const error = isObject(body) ? body.error : null;
  const type = isObject(error) ? error.type : error;
  return typeof type === 'string' && /^[\w.$-]{1,100}$/.test(type) ? type : null;
}

/** No answer came. @param sent false only where the request cannot have reached the server */
export function connectionFailure(
  error: unknown,
  what: string,
  subject: Subject,
  sent: boolean,
): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const reason = connectionReason(error);
  if (/CERT|SELF_SIGNED|UNABLE_TO_|^ERR_(?:TLS|SSL|OSSL)|HOSTNAME|^EPROTO$/.test(reason)) {
    return new TidemarkError('TM402', `${what}: TLS failed: ${reason}`, {
      remedy: 'Set tls.ca to the authority of the catalog’s certificate.',
    });
  }
  if (subject === 'commit' && sent) return new CommitStateUnknown(what, reason);
  return new TidemarkError('TM401', `${what}: no answer: ${reason}`);
}

/** The error's code: the HTTP library's messages may quote a header. */
export function connectionReason(error: unknown): string {
  const codes: string[] = [];
  for (let each = error; each instanceof Error && codes.length < 10; each = each.cause) {
    const { code } = each as { code?: unknown };
    codes.push(typeof code === 'string' ? code : each.name);
  }
  return codes.find((code) => /^E[A-Z]+$|CERT|^ERR_/.test(code)) ?? codes[0] ?? 'unknown failure';
}
