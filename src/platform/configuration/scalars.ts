/** Texts of the configuration into numbers: durations and sizes. */

const durationUnits: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const sizeUnits: Record<string, number> = {
  '': 1,
  B: 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

/** Milliseconds of `500ms`, `2s`, `15m`, `1h`, `7d`; null for anything else, also for a number without a unit. */
export function parseDuration(text: string): number | null {
  const match = text.match(/^(\d{1,15})(ms|s|m|h|d)$/);
  return match ? safe(Number(match[1]) * durationUnits[match[2]!]!) : null;
}

/** Bytes of `64MiB`, `1 GiB`, `1048576`; null for anything else, also for MB, which people read in two ways. */
export function parseBytes(text: string): number | null {
  const match = text.match(/^(\d{1,15}) ?(|B|KiB|MiB|GiB|TiB)$/);
  return match ? safe(Number(match[1]) * sizeUnits[match[2]!]!) : null;
}

export function parseInteger(text: string): number | null {
  return /^-?\d{1,15}$/.test(text) ? Number(text) : null;
}

function safe(value: number): number | null {
  return Number.isSafeInteger(value) ? value : null;
}

/** The shortest text that parseDuration reads as `milliseconds`. */
export function formatDuration(milliseconds: number): string {
  return format(milliseconds, durationUnits) || `${milliseconds}ms`;
}

/** The shortest text that parseBytes reads as `bytes`. */
export function formatBytes(bytes: number): string {
  return format(bytes, sizeUnits) || String(bytes);
}

function format(value: number, units: Record<string, number>): string {
  const largestFirst = Object.entries(units).reverse();
  for (const [unit, size] of largestFirst) {
    if (value > 0 && value % size === 0) return `${value / size}${unit === 'B' ? '' : unit}`;
  }
  return '';
}
