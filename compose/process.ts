/** Processes that may belong to an earlier run: told apart from strangers before any of them gets a signal. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { readJson, writeJson } from './layout.ts';

export interface ProcessIdentity {
  /** An opaque text that differs between two processes which had the same pid one after the other. */
  startedAt: string;
  commandLine: string;
}

/** What is written down about a process we started, so that a later run can find and end it. */
export interface ProcessRecord {
  pid: number;
  startedAt: string;
  /** A text in its command line that only a process of this stack has. */
  mark: string;
  stopSignal: NodeJS.Signals;
  stopTimeoutMs: number;
}

/** The live process with this pid; undefined when there is none, or only a zombie that nobody reaped. */
export function readProcess(pid: number): ProcessIdentity | undefined {
  return process.platform === 'linux' ? readFromProc(pid) : readFromPs(pid);
}

function readFromProc(pid: number): ProcessIdentity | undefined {
  try {
    // proc(5): the name in brackets may hold anything, so fields are counted behind the last bracket.
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
    const commandLine = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
    return { startedAt: fields[19] ?? '', commandLine };
  } catch {
    return undefined;
  }
}

function readFromPs(pid: number): ProcessIdentity | undefined {
  const result = spawnSync('ps', ['-ww', '-o', 'stat=,lstart=,command=', '-p', String(pid)], {
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C' },
  });
  // "S    Mon Nov  2 10:11:12 2026 command and arguments"
  const match = /^\s*(\S+)\s+(\S+\s+\S+\s+\S+\s+\S+\s+\S+)\s+(.*)$/.exec(result.stdout ?? '');
  if (!match || match[1]!.startsWith('Z')) return undefined;
  return { startedAt: match[2]!, commandLine: match[3]! };
}

/** Writes down a process that has just been started. */
export async function recordProcess(file: string, record: Omit<ProcessRecord, 'startedAt'>): Promise<void> {
  const identity = readProcess(record.pid);
  if (identity !== undefined) await writeJson(file, { ...record, startedAt: identity.startedAt });
}

/** True when the pid still is the process that was written down, and not a stranger that got its number. */
export function isAlive(record: ProcessRecord): boolean {
  const identity = readProcess(record.pid);
  if (identity === undefined) return false;
  return identity.startedAt === record.startedAt && identity.commandLine.includes(record.mark);
}

/** Ends a process left by an earlier run, if it still is that process. True when there was one. */
export async function endRecordedProcess(file: string): Promise<boolean> {
  const record = await readJson<ProcessRecord>(file);
  const alive = record !== undefined && isAlive(record);
  if (alive) await endProcess(record);
  await rm(file, { force: true });
  return alive;
}

/** Asks a process to stop, waits until it is gone, and kills it when it takes longer than its time. */
export async function endProcess(record: ProcessRecord): Promise<void> {
  signalProcess(record.pid, record.stopSignal);
  const deadline = Date.now() + record.stopTimeoutMs;
  while (isAlive(record)) {
    if (Date.now() > deadline) signalProcess(record.pid, 'SIGKILL');
    await sleep(25);
  }
}

/** Sends a signal; a process that is gone already is no error. */
export function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
