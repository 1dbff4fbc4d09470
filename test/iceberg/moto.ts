/** The component `moto`: AWS Glue's interface as a server. What it does not prove is said in glue-catalog.ts. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { ensurePythonModules } from './pyiceberg.ts';

const folder = join(import.meta.dirname, 'moto');

export interface MotoServer {
  endpoint: string;
  /** For PYTHONPATH: the AWS SDK for Python is among them. */
  modules: string;
  stop(): Promise<void>;
}

/** @param logFile gets its log */
export async function startMoto(logFile: string, log: (line: string) => void): Promise<MotoServer> {
  const requirements = join(folder, 'requirements.txt');
  const modules = await ensurePythonModules('moto', requirements, 'moto 5.2 from PyPI (40 MiB)', log);
  const child = spawn('python3', [join(folder, 'server.py')], {
    env: { ...process.env, PYTHONPATH: modules, PYTHONDONTWRITEBYTECODE: '1' },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  child.stderr.pipe(createWriteStream(logFile));
  const ended = once(child, 'exit');
  const lines = createInterface({ input: child.stdout });
  const port = await Promise.race([once(lines, 'line'), ended.then(() => null)]);
  if (port === null) throw new Error(`moto ended; its log is ${logFile}`);
  return {
    endpoint: `http://127.0.0.1:${port[0]}`,
    modules,
    async stop() {
      child.stdin.end();
      await ended;
    },
  };
}
