/** Kinds that keep every Change in files of an object log: in a directory and in a bucket. */
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { S3Client } from '@aws-sdk/client-s3';
import { startStack } from '../../compose/local-stack.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import type { OptionValues, Row, SinkKind } from '../../src/connector/sink.ts';
import { SmallDisk } from '../fixtures/small-disk.ts';
import { download } from './bucket-copy.ts';
import { optionValues } from './option-values.ts';
import { startS3Front } from './s3-front.ts';
import type { SeenEvent, Subject, SubjectServer } from './subject.ts';

export interface ObjectLog {
  kind: SinkKind;
  /** What a stranger sees of a folder that holds all tables. */
  latestRows(folder: string, shape: TableShape): Promise<Row[]>;
  changes(folder: string, shape: TableShape): Promise<SeenEvent[]>;
  /** Of the instances in a bucket, besides where it is. */
  bucketOptions?: OptionValues;
}

/** A full disk needs one of its own. */
const mayMount = SmallDisk.available();

function common({ name }: SinkKind) {
  return {
    mode: 'append',
    // Change files of one table have one key all along.
    refuses: { 'key-definition-change': 'TM405' },
    failpoints: ['before-upload', 'before-manifest', 'after-manifest'].map((point) => `${name}:${point}`),
    // What has no type of its own there is kept as text, and that holds any value.
    refusedRow: null,
  } satisfies Partial<Subject>;
}

export function inDirectory(log: ObjectLog): Subject {
  const { kind } = log;
  return {
    ...common(kind),
    kind,
    name: `${kind.name} in a directory`,
    unproven: {
      'refused credentials': 'A directory has no credentials and asks nobody to slow down',
      throttling: 'A directory has no credentials and asks nobody to slow down',
      ...(mayMount ? {} : { 'no room': 'A full disk is tried where the tests may mount one' }),
    },
    start: (folder) => startDirectory(log, folder),
  };
}

export function inBucket(log: ObjectLog): Subject {
  const { kind } = log;
  return {
    ...common(kind),
    kind,
    name: `${kind.name} in a bucket`,
    storageOnly: true,
    schedules: 10,
    start: (folder) => startBucket(log, folder),
  };
}

async function startDirectory(log: ObjectLog, folder: string): Promise<SubjectServer> {
  const { kind, latestRows, changes } = log;
  const disk = mayMount ? SmallDisk.mount(join(folder, 'disk')) : null;
  const root = join(disk?.folder ?? folder, 'log');
  await mkdir(root);
  let places = 0;
  return {
    async place() {
      places += 1;
      const directory = join(root, `case-${places}`);
      return {
        options: optionValues(kind, { [`${kind.name}.url`]: `file://${directory}` }),
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
}

async function startBucket(log: ObjectLog, folder: string): Promise<SubjectServer> {
  const { kind, latestRows, changes, bucketOptions } = log;
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
      const prefix = `log/case-${places}/`;
      const copy = join(folder, `copy-${places}`);
      const options = (secret: string) =>
        optionValues(kind, {
          [`${kind.name}.url`]: `s3://${bucket}/${prefix}`,
          's3.endpoint': front.endpoint,
          's3.access.key.id': accessKeyId,
          's3.secret.access.key': secret,
          's3.path.style': true,
          ...bucketOptions,
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
}
