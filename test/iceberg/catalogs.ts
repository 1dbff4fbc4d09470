/** The catalogs of a stack as readers reach them: Iceberg's own server, and SeaweedFS's for table buckets. */
import { SigV4 } from '../../connectors/sinks/iceberg/catalog/sigv4.ts';
import type { ReaderCatalog } from './reader.ts';

type Environment = Readonly<Record<string, string>>;

export const s3Region = 'us-east-1';

export function stackCatalog(environment: Environment): ReaderCatalog {
  return { uri: environment.TIDEMARK_ICEBERG_URL!, s3: stackS3(environment) };
}

/** Readers get a token there for the store's key pair; the sink signs its requests. */
export function tableBucketCatalog(environment: Environment, bucket: string): ReaderCatalog {
  const uri = environment.TIDEMARK_S3_ICEBERG_URL!;
  const { accessKeyId, secretAccessKey } = stackS3(environment);
  return {
    uri,
    warehouse: `s3://${bucket}`,
    oauth2: { tokenUrl: `${uri}/v1/oauth/tokens`, clientId: accessKeyId, clientSecret: secretAccessKey },
    s3: stackS3(environment),
  };
}

export function stackS3(environment: Environment) {
  return {
    endpoint: environment.TIDEMARK_S3_ENDPOINT!,
    region: s3Region,
    accessKeyId: environment.TIDEMARK_S3_ACCESS_KEY!,
    secretAccessKey: environment.TIDEMARK_S3_SECRET_KEY!,
  };
}

/** Tables of SeaweedFS's catalog lie in buckets of their own kind, which its S3 Tables interface makes. */
export async function createTableBucket(environment: Environment, name: string): Promise<void> {
  const { endpoint, region, ...credentials } = stackS3(environment);
  const body = JSON.stringify({ name });
  const headers = await new SigV4({ signingName: 's3tables', region, credentials }).authenticate({
    method: 'PUT',
    origin: new URL(endpoint),
    path: '/buckets',
    query: {},
    headers: { 'content-type': 'application/x-amz-json-1.1' },
    body,
  });
  const response = await fetch(`${endpoint}/buckets`, { method: 'PUT', headers, body });
  if (!response.ok)
    throw new Error(`creating a table bucket answered ${response.status}: ${await response.text()}`);
}
