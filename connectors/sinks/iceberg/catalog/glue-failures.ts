/** What an error of Glue's own API means. Its messages are left out: they may quote parameters. */
import { TidemarkError } from '../../../../src/connector/failure.ts';
import { connectionReason } from './failures.ts';

export function glueErrorName(error: unknown): string {
  return error instanceof Error ? error.name : 'unknown';
}

/** Another commit came first: the version of the table is not the one that was read. */
export function isConflict(error: unknown): boolean {
  return ['ConcurrentModificationException', 'VersionMismatchException'].includes(glueErrorName(error));
}

export function isMissing(error: unknown): boolean {
  return glueErrorName(error) === 'EntityNotFoundException';
}

/** The request may have been carried out all the same. */
export function leavesDoubt(error: unknown): boolean {
  const status = httpStatus(error);
  return status === null || status >= 500;
}

const rights = ['AccessDeniedException', 'AccessDenied', 'UnauthorizedException'];
const credentials = [
  'CredentialsProviderError',
  'UnrecognizedClientException',
  'InvalidSignatureException',
  'ExpiredTokenException',
  'InvalidClientTokenId',
  'MissingAuthenticationTokenException',
  'IncompleteSignatureException',
];
const passing = ['ThrottlingException', 'ResourceNumberLimitExceededException', 'OperationTimeoutException'];

export function glueFailure(error: unknown, what: string): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const name = glueErrorName(error);
  const status = httpStatus(error);
  if (status === null && !credentials.includes(name)) {
    return new TidemarkError('TM401', `${what}: no answer from Glue: ${connectionReason(error)}`);
  }
  const message = `${what}: ${name}${status === null ? '' : ` (HTTP ${status})`}`;
  if (credentials.includes(name)) {
    return new TidemarkError('TM402', message, {
      remedy: 'Check iceberg.catalog.sigv4.access.key.id and its secret, or this machine’s AWS identity.',
    });
  }
  if (rights.includes(name)) {
    return new TidemarkError('TM402', message, {
      remedy:
        'Grant glue:GetDatabase, GetDatabases, CreateDatabase, GetTable, GetTables, CreateTable, UpdateTable and DeleteTable on the catalog, the database and its tables.',
    });
  }
  if (status! >= 500 || passing.includes(name)) return new TidemarkError('TM401', message);
  return new TidemarkError('TM405', message, {
    remedy: 'Look the error up in the AWS Glue API reference; Glue refused the request as it is.',
  });
}

function httpStatus(error: unknown): number | null {
  return (error as { $metadata?: { httpStatusCode?: number } })?.$metadata?.httpStatusCode ?? null;
}
