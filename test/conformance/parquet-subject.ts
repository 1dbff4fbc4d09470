/** Kind `parquet`, in a directory and in a bucket. */
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { S3Client } from '@aws-sdk/client-s3';
import { startStack } from '../../compose/local-stack.ts';
import { parquetSink } from '../../connectors/sinks/parquet/index.ts';
import { SmallDisk } from '../fixtures/small-disk.ts';
import { download } from './bucket-copy.ts';
import { optionValues } from './option-values.ts';
import { changes, latestRows } from './parquet-reader.ts';
import { startS3Front } from './s3-front.ts';
import type { Subject, SubjectServer } from './subject.ts';

/** A full disk needs one of its own. */
const mayMount = SmallDisk.available();

const common: Omit<Subject, 'name' | 'start' | 'schedules'> = {
  kind: parquetSink,
  mode: 'append',
  // Change files of one table have one key all along.
  refuses: { 'key-definition-change': 'TM405' },
  failpoints: ['parquet:before-upload', 'parquet:before-manifest', 'parquet:after-manifest'],
  // Whatever is not a native value is kept as text.
  refusedRow: null,
};

export const parquetInDirectory: Subject = {
  ...common,
  name: 'parquet in a directory',
  unproven: {
    'refused credentials': 'A directory has no credentials and asks nobody to slow down',
    throttling: 'A directory has no credentials and asks nobody to slow down',
    ...(mayMount ? {} : { 'no room': 'A full disk is tried where the tests may mount one' }),
  },
  async start(folder): Promise<SubjectServer> {
    const disk = mayMount ? SmallDisk.mount(join(folder, 'disk')) : null;
    const root = join(disk?.folder ?? folder, 'lake');
    await mkdir(root);
    let places = 0;
    return {
      async place() {
        places += 1;
        const directory = join(root, `case-${places}`);
        return {
          options: optionValues(parquetSink, { 'parquet.url': `file://${directory}` }),
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

export const parquetInBucket: Subject = {
  ...common,
  name: 'parquet in a bucket',
  schedules: 10,
  async start(folder): Promise<SubjectServer> {
    const stack = await startStack({ directory: join(folder, 'stack'), parts: ['s3'] });
    const { environment } = stack;
    const endpoint = environment.TIDEMARK_S3_ENDPOINT!;
    const front = await startS3Front(endpoint);
    const bucket = environment.TIDEMARK_S3_BUCKET!;
    const accessKeyId = environment.TIDEMARK_S3_ACCESS_KEY!;
    const secretAccessKey = environment.TIDEMARK_S3_SECRET_KEY!;
    const client = new S3Client({
      endpoint,
      region: 'us-east-1',
      forcePathStyle: true,
      credentials: { accessKeyId, secretAccessKey },
    });
    let places = 0;
    return {
      async place() {
        places += 1;
        const prefix = `lake/case-${places}/`;
        const copy = join(folder, `copy-${places}`);
        const options = (secret: string) =>
          optionValues(parquetSink, {
            'parquet.url': `s3://${bucket}/${prefix}`,
            's3.endpoint': front.endpoint,
            's3.access.key.id': accessKeyId,
            's3.secret.access.key': secret,
            's3.path.style': true,
          });
        const copied = async () => {
          await download(client, bucket, prefix, copy);
          return copy;
        };
        return {
          options: options(secretAccessKey),
          refusedOptions: options(`wrong-${secretAccessKey}`),
          rows: async (shape) => latestRows(await copied(), shape),
          events: async (shape) => changes(await copied(), shape),
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
