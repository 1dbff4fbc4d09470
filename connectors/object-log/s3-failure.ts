/** What an error of the S3 client means for the pipeline, in one place. */
import { TidemarkError } from '../../src/connector/failure.ts';

export function s3Status(error: unknown): number | null {
  return (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode ?? null;
}

export function s3ErrorName(error: unknown): string {
  return error instanceof Error ? error.name : 'unknown';
}

const credentialNames = new Set([
  'CredentialsProviderError',
  'InvalidAccessKeyId',
  'SignatureDoesNotMatch',
  'ExpiredToken',
  'InvalidToken',
  'AccessDenied',
  'RequestTimeTooSkewed',
  'AllAccessDisabled',
  'AccountProblem',
]);
const addressNames = new Set([
  'PermanentRedirect',
  'AuthorizationHeaderMalformed',
  'IllegalLocationConstraintException',
  'InvalidBucketName',
]);

/** TM401 transient unless the answer says that only a person can help. The message holds names, never bodies. */
export function classifyS3(error: unknown, what: string, urlKey: string): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const name = s3ErrorName(error);
  const status = s3Status(error);
  const message = `cannot ${what}: ${name}${status === null ? '' : ` (HTTP ${status})`}`;
  if (name === 'NoSuchBucket') {
    return new TidemarkError('TM402', message, {
      cause: error,
      remedy: `Create the bucket of ${urlKey}, or correct the name.`,
    });
  }
  if (name === 'RequestTimeTooSkewed') {
    return new TidemarkError('TM402', message, { cause: error, remedy: "Set this machine's clock." });
  }
  if (credentialNames.has(name) || status === 401 || status === 403) {
    return new TidemarkError('TM402', message, {
      cause: error,
      remedy:
        'Check s3.access.key.id and its secret, and grant s3:GetObject, s3:PutObject, s3:DeleteObject on the prefix and s3:ListBucket on the bucket.',
    });
  }
  if (addressNames.has(name) || status === 301) {
    return new TidemarkError('TM101', message, {
      cause: error,
      remedy: `Correct s3.region, s3.endpoint, s3.path.style or the bucket of ${urlKey}.`,
    });
  }
  const certificate = (error as { code?: unknown }).code;
  if (typeof certificate === 'string' && /CERT|SELF_SIGNED|UNABLE_TO_VERIFY/.test(certificate)) {
    return new TidemarkError('TM402', `cannot ${what}: ${certificate}`, {
      cause: error,
      remedy: "Set s3.tls.ca to the authority of the endpoint's certificate.",
    });
  }
  // A request the server calls wrong (400, 405, 501) will be wrong again: stop rather than repeat it for ever.
  if (status !== null && status >= 400 && status < 500 && ![404, 408, 409, 412, 425, 429].includes(status)) {
    return new TidemarkError('TM402', message, {
      cause: error,
      remedy: 'The object store refused the request; check s3.endpoint and that the server is S3-compatible.',
    });
  }
  return new TidemarkError('TM401', message, { cause: error });
}
