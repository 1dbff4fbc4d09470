/**
 * Postgres' spelling of float4 and float8 with extra_float_digits 1 to 3 (src/common/d2s.c, f2s.c): the shortest
 * digits strictly inside the value's rounding interval. JavaScript also accepts a decimal that lies exactly on the
 * interval's edge (it would round to even), so such a one gets a digit more here. Laid out plain between 1e-4 and
 * 1e15 (float4: 1e6), else with an exponent of at least two digits.
 */
export type FloatKind = 'real' | 'double';

const significandBits = { real: 24, double: 53 } as const;
const maxDigits = { real: 9, double: 17 } as const;
const plainDigits = { real: 6, double: 15 } as const;

/** @param value for `real`: a number that is exactly a float4. */
export function postgresFloat(value: number, kind: FloatKind): string {
  if (Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value < 0 ? '-Infinity' : 'Infinity';
  if (value === 0) return Object.is(value, -0) ? '-0' : '0';
  const sign = value < 0 ? '-' : '';
  const [digits, power] = shortest(Math.abs(value), kind);
  if (power < -4 || power >= plainDigits[kind]) {
    const rest = digits.length > 1 ? `.${digits.slice(1)}` : '';
    const size = String(Math.abs(power)).padStart(2, '0');
    return `${sign}${digits[0]}${rest}e${power < 0 ? '-' : '+'}${size}`;
  }
  if (power < 0) return `${sign}0.${'0'.repeat(-power - 1)}${digits}`;
  if (digits.length <= power + 1) return `${sign}${digits}${'0'.repeat(power + 1 - digits.length)}`;
  return `${sign}${digits.slice(0, power + 1)}.${digits.slice(power + 1)}`;
}

/** Digits without trailing zeros, and the decimal exponent of the first of them. */
function shortest(value: number, kind: FloatKind): [string, number] {
  // Only values with few binary places can have a decimal this short on the edge (double: from 2^50, float4: 2^20).
  const edges = value >= 2 ** (significandBits[kind] - 3);
  if (kind === 'double') {
    const found = split(value.toExponential());
    if (!edges || strictlyInside(value, found, kind)) return found;
    for (let count = found[0].length + 1; count < maxDigits.double; count += 1) {
      const longer = rounded(value, count);
      if (Number(`${longer[0]}e${longer[1] - longer[0].length + 1}`) !== value) continue;
      if (strictlyInside(value, longer, kind)) return longer;
    }
    return rounded(value, maxDigits.double);
  }
  // Below a power of two the neighbours are nearer, so the nearest decimal may miss where the next one above fits.
  const lopsided = Number.isInteger(Math.log2(value));
  for (let count = 1; count < maxDigits.real; count += 1) {
    if (Math.fround(Number(value.toExponential(count - 1))) === value) {
      const found = rounded(value, count);
      if (!edges || strictlyInside(value, found, kind)) return found;
    } else if (lopsided) {
      const [digits, power] = split(value.toExponential(count - 1), count);
      const above = `${BigInt(digits) + 1n}e${power - count + 1}`;
      if (Math.fround(Number(above)) === value) return split(Number(above).toExponential());
    }
  }
  return rounded(value, maxDigits.real);
}

/** The value to so many digits; a tie goes to the even digit as in Postgres, where toExponential rounds up. */
function rounded(value: number, count: number): [string, number] {
  const text = value.toExponential(count - 1);
  const exact = value.toExponential(Math.min(100, count + 40)).replace('.', '');
  const tie = /^50*e/.test(exact.slice(count));
  const odd = '13579'.includes(text.replace('.', '')[count - 1]!);
  if (!tie || !odd) return split(text);
  return split(`${exact[0]}.${exact.slice(1, count)}e${exact.split('e')[1]}`);
}

/** Digits and exponent of what toExponential gave; padded with zeros to `count` digits, or without trailing ones. */
function split(text: string, count = 0): [string, number] {
  const [mantissa, exponent] = text.split('e') as [string, string];
  return [mantissa.replace('.', '').replace(/0+$/, '').padEnd(count, '0'), Number(exponent)];
}

/** For values from 2^20: whether the decimal is nearer to the value than halfway to its neighbours. */
function strictlyInside(value: number, [digits, power]: [string, number], kind: FloatKind): boolean {
  // The value is odd × 2^binary with up to 53 bits: find its last binary place within the type.
  const binary = Math.floor(Math.log2(value)) - significandBits[kind] + 1;
  // log2 may round up to the next integer just below a power of two; the unit must divide the value.
  const places = value / 2 ** binary < 2 ** (significandBits[kind] - 1) ? binary - 1 : binary;
  // Everything in quarters of that place and in units of the last decimal digit, so that it is all integers.
  const decimals = Math.max(0, digits.length - 1 - power);
  const scale = 2 ** Math.max(0, 2 - places);
  const factor = 10n ** BigInt(decimals) * BigInt(scale);
  const decimal = BigInt(digits) * 10n ** BigInt(Math.max(0, power - digits.length + 1)) * BigInt(scale);
  const exact = (BigInt(value * 2 ** Math.max(0, -places)) * factor) / BigInt(2 ** Math.max(0, -places));
  const distance = decimal > exact ? decimal - exact : exact - decimal;
  const place = places >= 0 ? BigInt(2 ** places) * factor : factor / BigInt(2 ** -places);
  const powerOfTwo = value === 2 ** (places + significandBits[kind] - 1);
  // Below a power of two the neighbours are twice as near.
  const reach = powerOfTwo && decimal < exact ? place / 4n : place / 2n;
  return distance < reach;
}
