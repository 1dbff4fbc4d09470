/** Requests signed as AWS wants them (Signature Version 4): Glue and S3 Tables, and whatever speaks like them. */
import { createHash, createHmac, type Hash, type Hmac } from 'node:crypto';
import { SignatureV4 } from '@smithy/signature-v4';
import { TidemarkError } from '../../../../src/connector/failure.ts';
import type { Authenticator, OutgoingRequest } from './rest-auth.ts';

export interface SigV4Settings {
  /** `glue`, `s3tables`, `execute-api`, … */
  signingName: string;
  region: string;
  /** Null: the machine's own AWS identity. */
  credentials: AwsCredentials | null;
}

export interface AwsCredentials {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string;
}

export class SigV4 implements Authenticator {
  readonly #settings: SigV4Settings;
  #signer: Promise<SignatureV4> | null = null;

  constructor(settings: SigV4Settings) {
    this.#settings = settings;
  }

  async authenticate(request: OutgoingRequest): Promise<Record<string, string>> {
    this.#signer ??= makeSigner(this.#settings);
    try {
      const signed = await (await this.#signer).sign({
        method: request.method,
        protocol: request.origin.protocol,
        hostname: request.origin.hostname,
        path: request.path,
        query: { ...request.query },
        headers: { ...request.headers, host: request.origin.host },
        body: request.body,
      });
      return signed.headers;
    } catch (error) {
      throw new TidemarkError('TM402', 'there are no AWS credentials to sign with', {
        cause: error,
        remedy:
          'Set iceberg.catalog.sigv4.access.key.id and its secret, or give this machine an AWS identity.',
      });
    }
  }

  /** A machine's identity is fetched again by its provider when it ends, and has one more chance then. */
  async renew(): Promise<boolean> {
    this.#signer = null;
    return this.#settings.credentials === null;
  }
}

async function makeSigner({ signingName, region, credentials }: SigV4Settings): Promise<SignatureV4> {
  return new SignatureV4({
    service: signingName,
    region,
    credentials: credentials ?? (await import('@aws-sdk/credential-provider-node')).defaultProvider(),
    sha256: Sha256,
  });
}

/** node:crypto behind the interface that the signer wants. */
class Sha256 {
  readonly #secret: string | ArrayBuffer | ArrayBufferView | undefined;
  #hash: Hash | Hmac;

  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.#secret = secret;
    this.#hash = hashOf(secret);
  }

  update(data: string | ArrayBuffer | ArrayBufferView): void {
    this.#hash.update(bytesOf(data));
  }

  async digest(): Promise<Uint8Array> {
    return this.#hash.digest();
  }

  reset(): void {
    this.#hash = hashOf(this.#secret);
  }
}

function hashOf(secret: string | ArrayBuffer | ArrayBufferView | undefined): Hash | Hmac {
  return secret === undefined ? createHash('sha256') : createHmac('sha256', bytesOf(secret));
}

function bytesOf(data: string | ArrayBuffer | ArrayBufferView): string | Uint8Array {
  if (typeof data === 'string') return data;
  return ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(data);
}
