/** Single cell values: ordinary ones, awkward ones, and behind `hostile` those that break naive pipelines. */
import { timestamp } from './clock.ts';
import type { Prng } from './prng.ts';

const words = (
  'token scope repository admin policy session export webhook bucket secret branch deploy runner tenant group ' +
  'audit mailbox role drift anomaly baseline device certificate tunnel origin quota replica archive'
).split(' ');

/** Texts that quoting, escaping, width and case folding get wrong. None holds NUL or a lone surrogate. */
const awkward = [
  '',
  ' ',
  '\\N',
  'O\'Brien \\ "quoted"; -- not a comment',
  'line one\nline two\r\n\ttabbed',
  '数据管道 — データ',
  'مراجعة أمنية',
  'Ünïcödé İıſß',
  'e\u0301 versus \u00e9',
  '👩‍👩‍👧‍👦 🏴‍☠️ 𝔘𝔫𝔦',
  '\u200b\u202eoverride\u202c',
  '{"looks":"like json"}',
  'NULL',
];

export function phrase(prng: Prng, count: number): string {
  if (prng.chance(0.04)) return prng.pick(awkward);
  let text = prng.pick(words);
  for (let i = 1; i < count; i++) text += ` ${prng.pick(words)}`;
  return text;
}

export function email(prng: Prng, person = prng.integer(1, 400)): string {
  return `person.${person}@example.com`;
}

export function address(prng: Prng): string {
  const bits = prng.uint32();
  if (prng.chance(0.2)) return `2001:db8:${(bits >>> 16).toString(16)}::${(bits & 0xffff).toString(16)}`;
  const host = `10.${(bits >>> 16) & 255}.${(bits >>> 8) & 255}.${bits & 255}`;
  return prng.chance(0.05) ? `${host.slice(0, host.lastIndexOf('.'))}.0/24` : host;
}

/** Between 3 and 9 KiB that do not compress, so that Postgres moves them out of line. */
export function evidence(prng: Prng): string {
  return `capture ${phrase(prng, 3)}\n${prng.bytes(prng.integer(2300, 6900)).toString('base64')}`;
}

/** For numeric(5,2). */
export function riskScore(prng: Prng, hostile: boolean): string {
  if (hostile && prng.chance(0.01)) return prng.pick(['NaN', '-999.99', '999.99', '0.00']);
  return (prng.integer(0, 10000) / 100).toFixed(2);
}

/** For the unbounded numeric: usually money, sometimes more digits than any fixed decimal has. */
export function exposure(prng: Prng, hostile: boolean): string | null {
  if (hostile && prng.chance(0.02)) {
    return prng.pick([
      'NaN',
      'Infinity',
      '-Infinity',
      `1${'0'.repeat(200)}`,
      `-0.${'0'.repeat(150)}1`,
      '0.000',
    ]);
  }
  if (prng.chance(0.1)) return null;
  if (prng.chance(0.05))
    return `-${prng.uint32()}${prng.uint32()}${prng.uint32()}.${prng.uint32()}${prng.uint32()}`;
  return `${Math.round(prng.logNormal(9, 2))}.${prng.integer(0, 99999)}`;
}

export function confidence(prng: Prng, hostile: boolean): string {
  if (hostile && prng.chance(0.01)) {
    return prng.pick(['NaN', 'Infinity', '-Infinity', '-0', '5e-324', '1.7976931348623157e308']);
  }
  return String(prng.unit());
}

/** End of a suppression; the product writes 'infinity' for good, which many systems downstream cannot hold. */
export function suppressedUntil(prng: Prng, now: number, hostile: boolean): string {
  if (hostile && prng.chance(0.2))
    return prng.pick(['infinity', '-infinity', '9999-12-31 23:59:59.999999+00']);
  return timestamp(now + Math.round(prng.exponential(30 * 86_400_000_000)));
}

export function interval(prng: Prng): string {
  if (prng.chance(0.1)) return '1 mon -3 days +04:05:06.000007';
  return `${prng.integer(0, 3)} days ${prng.integer(0, 86399)}.${String(prng.integer(0, 999999)).padStart(6, '0')} seconds`;
}
