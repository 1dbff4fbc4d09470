/** Kind `jsonl`: zstd in a directory, gzip in a bucket. */
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { GetObjectCommand, ListObjectsV2Command, S3Client } from '@aws-sdk/client-s3';
import { startStack } from '../../compose/local-stack.ts';
import { jsonlSink } from '../../connectors/sinks/jsonl/index.ts';
import { SmallDisk } from '../fixtures/small-disk.ts';
import { changes, latestRows } from './jsonl-reader.ts';
import { optionValues } from './option-values.ts';
import { startS3Front } from './s3-front.ts';
import type { Subject, SubjectServer } from './subject.ts';

/** A full disk needs one of its own. */
const mayMount = SmallDisk.available();

const common: Omit<Subject, 'name' | 'start'> = {
  kind: jsonlSink,
  mode: 'append',
  // Change files of one table have one key all along.
  refuses: { 'key-definition-change': 'TM405' },
  failpoints: ['jsonl:before-upload', 'jsonl:before-manifest', 'jsonl:after-manifest'],
  // A string holds any value.
  refusedRow: null,
};

export const jsonlInDirectory: Subject = {
  ...common,
  name: 'jsonl in a directory',
  unproven: {
    'refused credentials': 'A directory has no credentials and asks nobody to slow down',
    throttling: 'A directory has no credentials and asks nobody to slow down',
    ...(mayMount ? {} : { 'no room': 'A full disk is tried where the tests may mount one' }),
  },
  async start(folder): Promise<SubjectServer> {
    const disk = mayMount ? SmallDisk.mount(join(folder, 'disk')) : null;
    const root = join(disk?.folder ?? folder, 'archive');
    await mkdir(root);
    let places = 0;
    return {
      async place() {
        places += 1;
        const directory = join(root, `case-${places}`);
        return {
          options: optionValues(jsonlSink, { 'jsonl.url': `file://${directory}` }),
          rows: (shape) => latestRows(directory, shape),
          events: (shape) => changes(directory, shape),
          ...(disk && { whileFull: (work: () => Promise<void>) => disk.whileFull(work) }),
        };
      },
      /** The volume is not there: where it was is something else. */
      async whileDown(work) {
        await rename(root, `${root}.away`);
        await writeFile(root, '');
        try {
          await work();
        } finally {
          await rm(root);
          await rename(`${root}.away`, root);
        }
      },
      stop: async () => disk?.unmount(),
    };
  },
};

export const jsonlInBucket: Subject = {
  ...common,
  name: 'jsonl in a bucket',
  async start(folder): Promise<SubjectServer> {
    const stack = await startStack({ directory: join(folder, 'stack'), parts: ['s3'] });
    const { environment } = stack;
    const endpoint = environment.TIDEMARK_S3_ENDPOINT!;
    const front = await startS3Front(endpoint);
    const bucket = environment.TIDEMARK_S3_BUCKET!;
    const accessKeyId = environment.TIDEMARK_S3_ACCESS_KEY!;
    const secretAccessKey = environment.TIDEMARK_S3_SECRET_KEY!;
    const credentials = { accessKeyId, secretAccessKey };
    const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials });
    let places = 0;
    return {
      async place() {
        places += 1;
        const prefix = `archive/case-${places}/`;
        const copy = join(folder, `copy-${places}`);
        const options = (secret: string) =>
          optionValues(jsonlSink, {
            'jsonl.url': `s3://${bucket}/${prefix}`,
            'jsonl.compression': 'gzip',
            's3.endpoint': front.endpoint,
            's3.access.key.id': accessKeyId,
            's3.secret.access.key': secret,
            's3.path.style': true,
          });
        return {
          options: options(secretAccessKey),
          refusedOptions: options(`wrong-${secretAccessKey}`),
          rows: async (shape) => latestRows(await copyOf(client, bucket, prefix, copy), shape),
          events: async (shape) => changes(await copyOf(client, bucket, prefix, copy), shape),
          whileThrottled: front.whileSlow,
          whileFull: front.whileFull,
        };
      },
      async whileDown(work) {
        await stack.stopPart('s3', { signal: 'SIGKILL' });
        try {
          await work();
        } finally {
          await stack.startPart('s3');
        }
      },
      async stop() {
        client.destroy();
        front.stop();
        await stack.stop();
      },
    };
  },
};

/** What is under the prefix now, as files. */
async function copyOf(client: S3Client, bucket: string, prefix: string, folder: string): Promise<string> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  for (let token: string | undefined; ; ) {
    const page = await client.send(
      new ListObjectsV2Command({ Bucket: bucket, Prefix: prefix, ContinuationToken: token }),
    );
    for (const { Key: key } of page.Contents ?? []) {
      const target = join(folder, key!.slice(prefix.length));
      await mkdir(dirname(target), { recursive: true });
      const { Body: body } = await client.send(new GetObjectCommand({ Bucket: bucket, Key: key }));
      await writeFile(target, await body!.transformToByteArray());
    }
    token = page.NextContinuationToken;
    if (token === undefined) return folder;
  }
}
