/** Running short programs (Maven, tar, initdb) to their end. */
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { stackError } from './stack-error.ts';

export interface ProgramOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  uid?: number;
  gid?: number;
  /** What to try when it fails. */
  remedy: string;
}

/** Runs a program and gives its standard output; its last lines are in the error when it fails. */
export function runProgram(file: string, args: string[], options: ProgramOptions): Promise<string> {
  const { remedy, ...spawnOptions } = options;
  return new Promise((resolve, reject) => {
    let output = '';
    let errors = '';
    const child = spawn(file, args, { ...spawnOptions, stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk;
    });
    child.stderr.on('data', (chunk: Buffer) => {
      errors += chunk;
    });
    child.on('error', (cause) => reject(stackError(`${file} cannot be run`, remedy, cause)));
    child.on('close', (code, signal) => {
      if (code === 0) return resolve(output);
      const last = lastLines(`${output}\n${errors}`, 12);
      reject(stackError(`${file} ${args[0] ?? ''} ended with ${signal ?? `code ${code}`}:\n${last}`, remedy));
    });
  });
}

/** The last lines that are not empty. */
export function lastLines(text: string, count: number): string {
  return text
    .split('\n')
    .map((line) => line.trimEnd())
    .filter((line) => line !== '')
    .slice(-count)
    .join('\n');
}

/** The path of a program on PATH, or undefined. */
export function findProgram(name: string, path: string): string | undefined {
  for (const folder of path.split(delimiter)) {
    if (folder === '') continue;
    const candidate = join(folder, name);
    try {
      accessSync(candidate, constants.X_OK);
      return candidate;
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}
