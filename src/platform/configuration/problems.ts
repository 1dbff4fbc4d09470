/**
 * Collects what is wrong with the configuration, so that one run shows all of it. No text given to it may hold a
 * value from a file: values may be secrets, also under a mistyped key.
 */
import { TidemarkError } from '../errors.ts';

interface Problem {
  code: 'TM101' | 'TM102';
  file: string;
  line: number | null;
  /** Key as the reader would write it, or null where the whole file is meant. */
  key: string | null;
  text: string;
}

/** Nobody reads more, and a hostile file could ask for a lot. */
const mostLines = 100;

/** Says what is wrong with one key of the file that the caller is busy with. */
export type Report = (key: string | null, text: string, line?: number | null) => void;

export class Problems {
  readonly #problems: Problem[] = [];

  get any(): boolean {
    return this.#problems.length > 0;
  }

  add(problem: Problem): void {
    this.#problems.push(problem);
  }

  /** A Report for one file. */
  in(file: string): Report {
    return (key, text, line = null) => this.add({ code: 'TM101', file, line, key, text });
  }

  /** @throws TM102 if all problems are unresolved references, else TM101; every problem is a line of the message. */
  throwIfAny(): void {
    if (!this.any) return;
    const lines = this.#problems.map(({ file, line, key, text }) => {
      const place = line === null ? file : `${file}:${line}`;
      return key === null ? `${place}: ${text}` : `${place}: ${printableKey(key)}: ${text}`;
    });
    const shown = [...new Set(lines)];
    if (shown.length > mostLines)
      shown.splice(mostLines, shown.length, `and ${shown.length - mostLines} more`);
    const code = this.#problems.every((problem) => problem.code === 'TM102') ? 'TM102' : 'TM101';
    throw new TidemarkError(code, shown.join('\n'));
  }
}

/** The key, if it looks like one: a URL or a password that slipped to a key's place must not be repeated. */
function printableKey(key: string): string {
  return /^[\w.*[\]-]{1,160}$/.test(key) ? key : '(a key that is not a dotted name)';
}

/** The candidate that is fewest edits away from `word`, if that is near enough to be meant; else null. */
export function nearestSpelling(word: string, candidates: Iterable<string>): string | null {
  if (word.length > 160) return null;
  let best: string | null = null;
  let bestDistance = Math.max(2, Math.floor(word.length / 4)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment). */
export function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      let distance = Math.min(previous[j]! + 1, current[j - 1]! + 1, substitution);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        distance = Math.min(distance, beforePrevious[j - 2]! + 1);
      }
      current.push(distance);
    }
    beforePrevious = previous;
    previous = current;
  }
  return previous[b.length]!;
}
