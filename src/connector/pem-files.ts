/** The files that `tls.ca`, `tls.cert` and `tls.key` of an instance file name. */
import { readFileSync } from 'node:fs';
import { TidemarkError } from './failure.ts';

/** Paths; null where none is named. */
export interface PemPaths {
  ca: string | null;
  cert: string | null;
  key: string | null;
}

/** @returns what is in them, as Node's TLS options: those that are named. @throws TidemarkError TM102 */
export function readPemFiles(paths: PemPaths): { ca?: string; cert?: string; key?: string } {
  const files: { ca?: string; cert?: string; key?: string } = {};
  for (const name of ['ca', 'cert', 'key'] as const) {
    const path = paths[name];
    if (path === null) continue;
    try {
      files[name] = readFileSync(path, 'utf8');
    } catch (error) {
      throw new TidemarkError('TM102', `tls.${name}: the file cannot be read`, { cause: error });
    }
  }
  return files;
}
