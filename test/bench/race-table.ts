/** What contenders of one race achieved, as the lines of a result; ours is compared with each, round by round. */
import { median } from './process-cost.ts';
import type { BenchResult } from './run.ts';

export interface Measured {
  rowsPerSecond: number;
  cpuMicrosPerRow: number;
  peakMiB: number;
}

export const raceBar = 'rows/s (median)';

/** Whom BENCH_WITHOUT names (`peer,tcp`) stays out of the race. */
export function takesPart(contender: string): boolean {
  return !(process.env.BENCH_WITHOUT ?? '').split(',').includes(contender);
}

/** @param racing in the order of the lines */
export function raceTable<Contender extends string>(
  racing: readonly Contender[],
  titles: Record<Contender, string>,
  measured: Record<Contender, Measured[]> & { ours: Measured[] },
): BenchResult['rows'] {
  const ratioTo = (other: Contender) =>
    median(measured.ours.map((one, i) => one.rowsPerSecond / measured[other][i]!.rowsPerSecond)).toFixed(2);
  return racing.map((contender) => ({
    what: titles[contender],
    [raceBar]: Math.round(median(measured[contender].map((one) => one.rowsPerSecond))),
    'CPU µs/row': Number(median(measured[contender].map((one) => one.cpuMicrosPerRow)).toFixed(2)),
    'peak MiB': Math.round(median(measured[contender].map((one) => one.peakMiB))),
    'ours to this': ratioTo(contender),
  }));
}
