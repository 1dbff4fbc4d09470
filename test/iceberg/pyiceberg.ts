/** The component `pyiceberg`: Iceberg's own Python library, fetched once. */
import { join } from 'node:path';
import { ensureDownload } from '../../compose/download.ts';
import { stackLayout } from '../../compose/layout.ts';
import { runProgram } from '../../compose/program.ts';

const requirements = join(import.meta.dirname, 'pyiceberg', 'requirements.txt');

/** The folder to put on PYTHONPATH. @param log receives a line where it has to be fetched */
export function ensurePyiceberg(log: (line: string) => void): Promise<string> {
  return ensurePythonModules('pyiceberg', requirements, 'pyiceberg 0.12 from PyPI (70 MiB)', log);
}

/** The modules that a requirements file names, and no others: it lists what they need too. */
export async function ensurePythonModules(
  name: string,
  pinFile: string,
  announcement: string,
  log: (line: string) => void,
): Promise<string> {
  const fill = async (folder: string) => {
    const target = join(folder, 'modules');
    const pip = ['-m', 'pip', 'install', '--quiet', '--no-deps', '--no-compile', '--target', target];
    const remedy =
      'pip must reach PyPI (or the index in its settings), and Python must be 3.11 or newer; then start again.';
    await runProgram('python3', [...pip, '-r', pinFile], { remedy });
  };
  const { downloads } = stackLayout();
  return join(await ensureDownload(downloads, { name, pinFile, announcement, fill }, log), 'modules');
}
