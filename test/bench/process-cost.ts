/** What a process has cost so far, from /proc. */
import { readFile } from 'node:fs/promises';

/** User and system time of a process so far, microseconds (clock ticks of 10 ms). */
export async function cpuMicros(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10000;
}

/** Resident memory at its highest so far. */
export function peakMemoryMiB(pid: number): Promise<number> {
  return statusMiB(pid, 'VmHWM');
}

/** Resident memory now. */
export function memoryMiB(pid: number): Promise<number> {
  return statusMiB(pid, 'VmRSS');
}

async function statusMiB(pid: number, field: string): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1] ?? 0) / 1024;
}

/** @param share 0.5: the median */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
