/** ClickHouse: its engine from PyPI (chdb) behind clickhouse/server.py, which speaks its HTTP interface. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ensureDownload } from './download.ts';
import type { Part, PartContext, ServerCommand } from './part.ts';
import { loopback } from './ports.ts';
import { runProgram } from './program.ts';

const folderOfServer = join(import.meta.dirname, 'clickhouse');
const requirements = join(folderOfServer, 'requirements.txt');
const user = 'tidemark';

/** ClickHouse 26.9 with one user. */
export function clickhousePart({ layout, settings, log }: PartContext): Part {
  const folder = join(layout.data, 'clickhouse');
  const { ports, clickhousePassword: password } = settings;
  const endpoint = `http://${loopback}:${ports.clickhouse}`;

  const prepare = async (): Promise<ServerCommand> => {
    const program = await ensureDownload(
      layout.downloads,
      {
        name: 'clickhouse',
        pinFile: requirements,
        announcement: 'ClickHouse 26.9 as chdb from PyPI (180 MiB)',
        fill: fetchModule,
      },
      log,
    );
    await mkdir(join(folder, 'store'), { recursive: true });
    return {
      file: 'python3',
      args: [
        join(folderOfServer, 'server.py'),
        '--folder',
        join(folder, 'store'),
        '--host',
        loopback,
        '--port',
        String(ports.clickhouse),
        '--user',
        user,
      ],
      cwd: folder,
      env: {
        ...process.env,
        PYTHONPATH: join(program, 'modules'),
        PYTHONDONTWRITEBYTECODE: '1',
        CLICKHOUSE_PASSWORD: password,
        TMPDIR: folder,
      },
    };
  };

  return {
    name: 'clickhouse',
    title: 'ClickHouse 26.9',
    mark: folder,
    stopSignal: 'SIGTERM',
    stopTimeoutMs: 20_000,
    prepare,
    ready: async () => {
      const response = await fetch(endpoint, {
        method: 'POST',
        headers: { 'X-ClickHouse-User': user, 'X-ClickHouse-Key': password },
        body: 'SELECT count() FROM system.databases',
      });
      if (!response.ok) throw new Error(`ClickHouse answers ${response.status}`);
      await response.arrayBuffer();
    },
    environment: () => ({
      TIDEMARK_CLICKHOUSE_URL: endpoint,
      TIDEMARK_CLICKHOUSE_USER: user,
      TIDEMARK_CLICKHOUSE_PASSWORD: password,
    }),
  };
}

/** Without its dependencies: they are for data frames. */
async function fetchModule(folder: string): Promise<void> {
  const remedy = 'pip must reach PyPI (or the index in its settings); then start again.';
  const target = join(folder, 'modules');
  const pip = ['-m', 'pip', 'install', '--quiet', '--no-deps', '--no-compile', '--target', target];
  await runProgram('python3', [...pip, '-r', requirements], { remedy });
}
