/** Objects in an S3 bucket. Data objects go up as single PUTs with an MD5 that the server checks. */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { Agent } from 'node:https';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  DeleteObjectsCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { TidemarkError } from '../../src/connector/failure.ts';
import type { S3Location } from './location.ts';
import type { ObjectStore } from './object-store.ts';
import { classifyS3, s3ErrorName, s3Status } from './s3-failure.ts';

/** Tries of one streamed upload; the SDK cannot repeat a request whose body was a stream. */
const uploadTries = 3;
const conflictTries = 8;

export class S3Store implements ObjectStore {
  readonly readableUrl: string;
  readonly #client: S3Client;
  readonly #bucket: string;
  readonly #prefix: string;
  readonly #urlKey: string;

  private constructor(client: S3Client, location: S3Location) {
    this.#client = client;
    this.#bucket = location.bucket;
    this.#prefix = location.prefix === '' ? '' : `${location.prefix}/`;
    this.#urlKey = location.urlKey;
    this.readableUrl = `s3://${location.bucket}${location.prefix === '' ? '' : `/${location.prefix}`}`;
  }

  /** @throws TidemarkError TM102 where the PEM file of s3.tls.ca cannot be read. */
  static async open(location: S3Location): Promise<S3Store> {
    const requestHandler: Record<string, unknown> = { connectionTimeout: 5_000, requestTimeout: 60_000 };
    if (location.tlsCa !== null) {
      const ca = await readFile(location.tlsCa).catch((error) => {
        throw new TidemarkError('TM102', 'the file of s3.tls.ca cannot be read', { cause: error });
      });
      requestHandler.httpsAgent = new Agent({ ca, keepAlive: true, maxSockets: 50 });
    }
    const client = new S3Client({
      region: location.region,
      forcePathStyle: location.pathStyle,
      maxAttempts: 3,
      // The default adds trailing checksums in a chunked encoding that many S3-compatible servers refuse.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      requestHandler,
      ...(location.endpoint === null ? {} : { endpoint: location.endpoint }),
      ...(location.credentials === null ? {} : { credentials: location.credentials }),
    });
    return new S3Store(client, location);
  }

  async putFile(key: string, localPath: string, contentType: string): Promise<void> {
    const { size } = await stat(localPath);
    const hash = createHash('md5');
    for await (const piece of createReadStream(localPath)) hash.update(piece as Buffer);
    const md5 = hash.digest('base64');
    for (let attempt = 1; ; attempt += 1) {
      const body = createReadStream(localPath);
      try {
        await this.#client.send(
          new PutObjectCommand({
            ...this.#at(key),
            Body: body,
            ContentLength: size,
            ContentMD5: md5,
            ContentType: contentType,
          }),
        );
        return;
      } catch (error) {
        const failure = this.#classify(error, `write ${key}`);
        if (failure.retry !== 'transient' || attempt === uploadTries) throw failure;
        await sleep(200 * attempt);
      } finally {
        body.destroy();
      }
    }
  }

  async put(key: string, body: Buffer): Promise<void> {
    await this.#run(`write ${key}`, () =>
      this.#client.send(new PutObjectCommand({ ...this.#at(key), Body: body })),
    );
  }

  async putIfAbsent(key: string, body: Buffer): Promise<'written' | 'exists'> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        await this.#client.send(
          new PutObjectCommand({
            ...this.#at(key),
            Body: body,
            IfNoneMatch: '*',
            ContentType: 'application/json',
          }),
        );
        return 'written';
      } catch (error) {
        if (s3Status(error) === 412) return 'exists';
        // ConditionalRequestConflict: another conditional write was under way; nothing was decided, so ask again.
        const conflict = s3Status(error) === 409 || s3ErrorName(error) === 'ConditionalRequestConflict';
        if (!conflict || attempt === conflictTries) throw this.#classify(error, `write ${key}`);
        await sleep(50 * attempt * (0.5 + Math.random()));
      }
    }
  }

  async get(key: string): Promise<Buffer | null> {
    try {
      const answer = await this.#client.send(new GetObjectCommand(this.#at(key)));
      return Buffer.from(await answer.Body!.transformToByteArray());
    } catch (error) {
      if (s3Status(error) === 404 && s3ErrorName(error) !== 'NoSuchBucket') return null;
      throw this.#classify(error, `read ${key}`);
    }
  }

  async download(key: string, localPath: string): Promise<void> {
    await this.#run(`read ${key}`, async () => {
      const answer = await this.#client.send(new GetObjectCommand(this.#at(key)));
      await pipeline(answer.Body as Readable, createWriteStream(localPath));
    });
  }

  async listPage(folder: string, after: string | null, limit: number): Promise<string[]> {
    const answer = await this.#run(`list ${folder}`, () =>
      this.#client.send(
        new ListObjectsV2Command({
          Bucket: this.#bucket,
          Prefix: `${this.#prefix}${folder}`,
          MaxKeys: limit,
          ...(after === null ? {} : { StartAfter: `${this.#prefix}${after}` }),
        }),
      ),
    );
    return (answer.Contents ?? []).map((object) => object.Key!.slice(this.#prefix.length));
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (let start = 0; start < keys.length; start += 1000) {
      const page = keys.slice(start, start + 1000);
      const answer = await this.#run('delete objects', () =>
        this.#client.send(
          new DeleteObjectsCommand({
            Bucket: this.#bucket,
            Delete: { Objects: page.map((key) => ({ Key: `${this.#prefix}${key}` })), Quiet: true },
          }),
        ),
      );
      const refused = (answer.Errors ?? []).find((error) => error.Code !== 'NoSuchKey');
      if (refused) {
        throw this.#classify(
          Object.assign(new Error('delete refused'), {
            name: refused.Code ?? 'Unknown',
            $metadata: { httpStatusCode: refused.Code === 'AccessDenied' ? 403 : 500 },
          }),
          'delete objects',
        );
      }
    }
  }

  localPath(): null {
    return null;
  }

  async close(): Promise<void> {
    this.#client.destroy();
  }

  #classify(error: unknown, what: string): TidemarkError {
    return classifyS3(error, what, this.#urlKey);
  }

  #at(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.#bucket, Key: `${this.#prefix}${key}` };
  }

  async #run<T>(what: string, request: () => Promise<T>): Promise<T> {
    try {
      return await request();
    } catch (error) {
      throw this.#classify(error, what);
    }
  }
}
