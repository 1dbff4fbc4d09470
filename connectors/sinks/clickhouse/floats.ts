/**
 * Postgres' spelling of a floating number: its shortest digits, plain between 1e-4 and 1e15 (real: 1e6). Where Postgres
 * picks other digits of the same number, the sink keeps Postgres' text beside it, so this need not know of that.
 */
export type FloatKind = 'real' | 'double';

export function printFloat(value: number, kind: FloatKind): string {
  if (Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value < 0 ? '-Infinity' : 'Infinity';
  if (value === 0) return Object.is(value, -0) ? '-0' : '0';
  const [mantissa, exponent] = shortest(Math.abs(value), kind).split('e') as [string, string];
  const sign = value < 0 ? '-' : '';
  const digits = mantissa.replace('.', '').replace(/0+$/, '');
  const power = Number(exponent);
  if (power < -4 || power >= (kind === 'real' ? 6 : 15)) {
    const rest = digits.length > 1 ? `.${digits.slice(1)}` : '';
    return `${sign}${digits[0]}${rest}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`;
  }
  if (power < 0) return `${sign}0.${'0'.repeat(-power - 1)}${digits}`;
  if (digits.length <= power + 1) return `${sign}${digits.padEnd(power + 1, '0')}`;
  return `${sign}${digits.slice(0, power + 1)}.${digits.slice(power + 1)}`;
}

function shortest(value: number, kind: FloatKind): string {
  if (kind === 'double') return value.toExponential();
  for (let digits = 0; digits < 8; digits++) {
    const text = value.toExponential(digits);
    if (Math.fround(Number(text)) === value) return text;
  }
  return value.toExponential(8);
}

/** ClickHouse's spelling, which JavaScript reads but for three words. */
export function parseFloatField(field: string, kind: FloatKind): number {
  if (field === 'nan' || field === '-nan') return Number.NaN;
  if (field === 'inf') return Number.POSITIVE_INFINITY;
  if (field === '-inf') return Number.NEGATIVE_INFINITY;
  return kind === 'real' ? Math.fround(Number(field)) : Number(field);
}
