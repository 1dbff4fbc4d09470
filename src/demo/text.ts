/** How the demo writes figures: short, and never wider than the place they have. */
import { formatLsn, type Position, parsePosition } from '../connector/position.ts';

/** Bytes with a binary unit, at most 8 characters. */
export function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** @param value milliseconds, null for unknown */
export function milliseconds(value: number | null): string {
  if (value === null) return '–';
  return value < 1000 ? `${Math.round(value)} ms` : seconds(value / 1000);
}

export function seconds(value: number): string {
  if (value < 60) return `${value.toFixed(1)} s`;
  return value < 7200 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
}

/** Minutes and seconds, hours where there are any. */
export function clock(value: number): string {
  const whole = Math.floor(value);
  const two = (part: number) => String(part).padStart(2, '0');
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return `${hours > 0 ? `${hours}:${two(minutes)}` : minutes}:${two(whole % 60)}`;
}

export function grouped(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

/** A Position as Postgres spells its LSN, `0/1A2B3C4`; an epoch after the first in front of it. */
export function shortPosition(position: Position): string {
  const { epoch, lsn } = parsePosition(position);
  return `${epoch > 1 ? `epoch ${epoch} ` : ''}${formatLsn(lsn)}`;
}

/** The telling part of a destination's commit id: the last segment of a path, without the zeros in front. */
export function shortCommit(id: string): string {
  const name = id.slice(id.lastIndexOf('/') + 1).replace(/^0+(?=[^.])/, '');
  return name.length > 16 ? `${name.slice(0, 15)}…` : name;
}

const bars = '▁▂▃▄▅▆▇█';

/** One bar per value, the highest value full. */
export function sparkline(values: readonly number[]): string {
  const highest = Math.max(1, ...values);
  return values.map((value) => bars[Math.min(7, Math.floor((value / highest) * 7.999))]).join('');
}

/** Characters that a terminal shows; colour codes take no room. */
export function visibleLength(text: string): number {
  let length = 0;
  for (let at = 0; at < text.length; at++) {
    if (text[at] === '\u001b') at = text.indexOf('m', at);
    else length++;
  }
  return length;
}

/** Cuts to a number of visible characters. */
export function cut(text: string, width: number): string {
  if (visibleLength(text) <= width) return text;
  let visible = 0;
  for (let at = 0; at < text.length; at++) {
    if (text[at] === '\u001b') {
      at = text.indexOf('m', at);
      continue;
    }
    visible++;
    if (visible === width) return `${text.slice(0, at)}…${text.includes('\u001b') ? '\u001b[0m' : ''}`;
  }
  return text;
}

/** Exactly so many visible characters. */
export function exactly(text: string, width: number): string {
  const short = cut(text, width);
  return short + ' '.repeat(Math.max(0, width - visibleLength(short)));
}
