/** Table files in S3 buckets: any bucket that the credentials open. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { Agent } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  DeleteObjectsCommand,
  GetObjectCommand,
  type GetObjectCommandInput,
  ListObjectsV2Command,
  type ListObjectsV2CommandOutput,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { TidemarkError } from '../../../src/connector/failure.ts';
import { classifyS3, s3ErrorName, s3Status } from '../../object-log/s3-failure.ts';
import { type FileEntry, type FileStore, parseLocation } from './file-store.ts';
import type { S3Access } from './s3-access.ts';

/** Tries of one streamed upload; the SDK cannot repeat a request whose body was a stream. */
const uploadTries = 3;
/** Credentials without an end are asked for again after this: the source may know better ones. */
const credentialLifeMs = 3_600_000;

interface Place {
  scheme: string;
  bucket: string;
  key: string;
}

export class S3FileStore implements FileStore {
  readonly #client: S3Client;

  private constructor(client: S3Client) {
    this.#client = client;
  }

  /** @throws TidemarkError TM102 where the PEM file of s3.tls.ca cannot be read */
  static async open({ endpoint, region, pathStyle, tlsCa, credentials }: S3Access): Promise<S3FileStore> {
    const requestHandler: Record<string, unknown> = { connectionTimeout: 5_000, requestTimeout: 60_000 };
    if (tlsCa !== null) {
      const ca = await readFile(tlsCa).catch((error) => {
        throw new TidemarkError('TM102', 'the file of s3.tls.ca cannot be read', { cause: error });
      });
      requestHandler.httpsAgent = new Agent({ ca, keepAlive: true, maxSockets: 50 });
    }
    const source = credentials;
    const client = new S3Client({
      region,
      forcePathStyle: pathStyle,
      maxAttempts: 3,
      // The default adds trailing checksums in a chunked encoding that many S3-compatible servers refuse.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      requestHandler,
      ...(endpoint === null ? {} : { endpoint }),
      ...(source === null
        ? {}
        : {
            // The SDK keeps what this gives until it ends.
            credentials: async () => {
              const given = await source();
              return { expiration: new Date(Date.now() + credentialLifeMs), ...given };
            },
          }),
    });
    return new S3FileStore(client);
  }

  get(location: string): Promise<Buffer | null> {
    return this.#get(location, {});
  }

  getRange(location: string, start: number, length: number): Promise<Buffer | null> {
    if (length === 0) return Promise.resolve(Buffer.alloc(0));
    return this.#get(location, { Range: `bytes=${start}-${start + length - 1}` });
  }

  async put(location: string, body: Buffer): Promise<void> {
    const { bucket, key } = placeOf(location);
    const md5 = createHash('md5').update(body).digest('base64');
    await this.#run('write a file', () =>
      this.#client.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: body, ContentMD5: md5 })),
    );
  }

  async putFile(location: string, localPath: string): Promise<void> {
    const { bucket, key } = placeOf(location);
    const { size } = await stat(localPath);
    const hash = createHash('md5');
    for await (const piece of createReadStream(localPath)) hash.update(piece as Buffer);
    const target = { Bucket: bucket, Key: key, ContentLength: size, ContentMD5: hash.digest('base64') };
    for (let attempt = 1; ; attempt += 1) {
      const body = createReadStream(localPath);
      try {
        await this.#client.send(new PutObjectCommand({ ...target, Body: body }));
        return;
      } catch (error) {
        const failure = classify(error, 'write a file');
        if (failure.retry !== 'transient' || attempt === uploadTries) throw failure;
        await sleep(200 * attempt);
      } finally {
        body.destroy();
      }
    }
  }

  async delete(locations: readonly string[]): Promise<void> {
    const places = Map.groupBy(locations.map(placeOf), ({ bucket }) => bucket);
    for (const [bucket, found] of places) {
      for (let start = 0; start < found.length; start += 1000) {
        const Objects = found.slice(start, start + 1000).map(({ key }) => ({ Key: key }));
        const answer = await this.#run('delete files', () =>
          this.#client.send(new DeleteObjectsCommand({ Bucket: bucket, Delete: { Objects, Quiet: true } })),
        );
        const refused = answer.Errors?.find(({ Code }) => Code !== 'NoSuchKey');
        if (refused) throw classify(deletionError(refused.Code), 'delete files');
      }
    }
  }

  async *list(prefix: string): AsyncIterable<FileEntry[]> {
    const { scheme, bucket, key } = placeOf(prefix);
    for (let token: string | undefined; ; ) {
      const request = {
        Bucket: bucket,
        Prefix: key,
        ...(token === undefined ? {} : { ContinuationToken: token }),
      };
      const answer: ListObjectsV2CommandOutput = await this.#run('list files', () =>
        this.#client.send(new ListObjectsV2Command(request)),
      );
      const page = (answer.Contents ?? []).map((object) => ({
        location: `${scheme}://${bucket}/${object.Key!}`,
        size: object.Size ?? 0,
        modifiedMs: object.LastModified?.getTime() ?? 0,
      }));
      if (page.length > 0) yield page;
      token = answer.NextContinuationToken;
      if (token === undefined) return;
    }
  }

  async close(): Promise<void> {
    this.#client.destroy();
  }

  async #get(location: string, range: Pick<GetObjectCommandInput, 'Range'>): Promise<Buffer | null> {
    const { bucket, key } = placeOf(location);
    try {
      const answer = await this.#client.send(new GetObjectCommand({ Bucket: bucket, Key: key, ...range }));
      return Buffer.from(await answer.Body!.transformToByteArray());
    } catch (error) {
      if (s3Status(error) === 404 && s3ErrorName(error) !== 'NoSuchBucket') return null;
      // The range begins behind the end.
      if (s3Status(error) === 416) return Buffer.alloc(0);
      throw classify(error, 'read a file');
    }
  }

  async #run<T>(what: string, request: () => Promise<T>): Promise<T> {
    try {
      return await request();
    } catch (error) {
      throw classify(error, what);
    }
  }
}

function placeOf(location: string): Place {
  const parsed = parseLocation(location);
  if (parsed.kind === 's3') return parsed;
  throw new TidemarkError('TM101', 'a table has files in S3 and elsewhere', {
    remedy: 'Keep each table in one place.',
  });
}

/** File names hold partition values, so none is in a message. */
function classify(error: unknown, what: string): TidemarkError {
  return classifyS3(error, what, 'iceberg.warehouse');
}

function deletionError(code: string | undefined): Error {
  return Object.assign(new Error('delete refused'), {
    name: code ?? 'Unknown',
    $metadata: { httpStatusCode: code === 'AccessDenied' ? 403 : 500 },
  });
}
