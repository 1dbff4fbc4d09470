/** Random numbers that a printed seed replays: TIDEMARK_SEED=<n>. */
export interface Random {
  seed: number;
  /** From [0, 1). */
  next(): number;
  /** From [0, below). */
  integer(below: number): number;
  pick<T>(items: readonly T[]): T;
}

/** Mulberry32. */
export function random(
  seed = Number(process.env.TIDEMARK_SEED ?? Math.floor(Math.random() * 2 ** 31)),
): Random {
  let state = seed;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const integer = (below: number) => Math.floor(next() * below);
  return { seed, next, integer, pick: (items) => items[integer(items.length)]! };
}
