/** Windows as the pipeline hands them to a sink, made of what was cut from the in-memory source. */
import { beforeEverything, type Position } from '../../src/connector/position.ts';
import { unitName } from '../../src/connector/shape.ts';
import type { AppendWindow, MergeWindow, Sweep } from '../../src/connector/sink.ts';
import type { Cut, ExpectedTable, Part } from './source.ts';

/** Of the one source and the one destination of every case. */
export const names = { sourceId: 'conformance', destination: 'subject' };

/** A decided Window: its retries are made of the same. */
export interface WindowPlan {
  unit: string;
  sequence: number;
  from: Position;
  to: Position;
  commitTimeUs: bigint;
  parts: readonly Part[];
  sweeps: readonly Sweep[];
  /** What a stranger must see once it is there. */
  expected: readonly ExpectedTable[];
}

/** Rows that travel together: small, so that there are several batches. */
const batchRows = 7;

/** Numbers the Windows of each Unit. */
export class WindowPlanner {
  readonly #unit: 'destination' | 'table';
  readonly #last = new Map<string, { sequence: number; to: Position }>();

  constructor(unit: 'destination' | 'table') {
    this.#unit = unit;
  }

  /** One Window for each Unit that something happened in. */
  plan({ parts, sweeps, position, commitTimeUs, expected }: Cut): WindowPlan[] {
    const unitOf = (part: Pick<Part, 'shape'>) => (this.#unit === 'destination' ? '*' : unitName(part.shape));
    const units = new Set([...parts, ...sweeps].map(unitOf));
    return [...units].map((unit) => {
      const { sequence, to } = this.#last.get(unit) ?? { sequence: 0, to: beforeEverything };
      const plan: WindowPlan = {
        unit,
        sequence: sequence + 1,
        from: to,
        to: position,
        commitTimeUs,
        parts: parts.filter((part) => unitOf(part) === unit),
        sweeps: sweeps.filter((sweep) => unitOf(sweep) === unit),
        expected,
      };
      this.#last.set(unit, plan);
      return plan;
    });
  }
}

export function mergeWindow(plan: WindowPlan, fencingToken: bigint): MergeWindow {
  const changed = plan.parts.filter(
    ({ events }) => events.length === 0 || events.some(({ op }) => op !== 's'),
  );
  return {
    ...baseOf(plan, fencingToken),
    tables: changed.map(({ shape, truncated, snapshots, states, counts, events }) => ({
      shape,
      truncated,
      snapshots,
      states: () => inBatches(states),
      counts: () => inBatches(counts),
      events: () => inBatches(events.filter(({ op }) => op !== 's')),
    })),
    sweeps: plan.sweeps,
  };
}

export function appendWindow(plan: WindowPlan, fencingToken: bigint): AppendWindow {
  return {
    ...baseOf(plan, fencingToken),
    tables: plan.parts.map(({ shape, events }) => ({ shape, events: () => inBatches(events) })),
  };
}

function baseOf({ unit, sequence, from, to, commitTimeUs }: WindowPlan, fencingToken: bigint) {
  return { ...names, unit, sequence, from, to, commitTimeUs, fencingToken };
}

/** The Window as it is written again after the destination refused rows. */
export function withoutChanges(plan: WindowPlan, positions: ReadonlySet<string>): WindowPlan {
  const kept = <T extends { position: Position }>(list: readonly T[]) =>
    list.filter(({ position }) => !positions.has(position));
  return {
    ...plan,
    parts: plan.parts.map((part) => ({ ...part, states: kept(part.states), events: kept(part.events) })),
  };
}

async function* inBatches<T>(items: readonly T[]): AsyncGenerator<T[]> {
  for (let start = 0; start < items.length; start += batchRows) yield items.slice(start, start + batchRows);
}
