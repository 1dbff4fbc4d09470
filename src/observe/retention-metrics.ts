/** What the retention service does with each table, for Prometheus. */
import { Counter, Gauge, type Registry } from 'prom-client';
/** One round over one table. */
export interface RetentionRound {
  table: string;
  marked: number;
  /** In this round. */
  evicted: number;
  staying: Readonly<Record<string, number>>;
  /** Commit time that its destinations have reached, microseconds since 1970; null: nothing waits for them. */
  floorUs: number | null;
  recalled: number | null;
  problem: { code: string } | null;
}

/** @returns takes each round */
export function retentionMetrics(registers: Registry[]): (rounds: readonly RetentionRound[]) => void {
  const labelNames = ['table'] as const;
  const marked = new Gauge({
    name: 'tidemark_retention_marked_rows',
    help: 'Rows that are old enough and wait for proof of delivery.',
    labelNames,
    registers,
  });
  const evicted = new Counter({
    name: 'tidemark_retention_evicted_rows_total',
    help: 'Rows that were evicted.',
    labelNames,
    registers,
  });
  const staying = new Gauge({
    name: 'tidemark_retention_staying_rows',
    help: 'Rows that are old enough and stay, by reason, in the last round.',
    labelNames: ['table', 'reason'] as const,
    registers,
  });
  const recalled = new Gauge({
    name: 'tidemark_retention_recalled_rows',
    help: 'Rows that were recalled, since the beginning.',
    labelNames,
    registers,
  });
  const floor = new Gauge({
    name: 'tidemark_retention_floor_timestamp_seconds',
    help: 'Commit time that the destinations have reached which the policy relies on, seconds since 1970; absent while nothing waits for them.',
    labelNames,
    registers,
  });
  const alarms = new Gauge({
    name: 'tidemark_retention_alarms',
    help: '1 where something keeps the table, or a part of it, from being evicted until somebody acts.',
    labelNames: ['table', 'code'] as const,
    registers,
  });
  const round = new Gauge({
    name: 'tidemark_retention_round_timestamp_seconds',
    help: 'When this process looked at the tables last, seconds since 1970; 0: another one works.',
    registers,
  });
  return (rounds) => {
    for (const gauge of [marked, staying, floor, alarms]) gauge.reset();
    round.setToCurrentTime();
    for (const { table, problem, ...found } of rounds) {
      marked.set({ table }, found.marked);
      evicted.inc({ table }, found.evicted);
      for (const [reason, rows] of Object.entries(found.staying)) staying.set({ table, reason }, rows);
      if (found.recalled !== null) recalled.set({ table }, found.recalled);
      if (found.floorUs !== null) floor.set({ table }, found.floorUs / 1e6);
      if (problem) alarms.set({ table, code: problem.code }, 1);
    }
  };
}
