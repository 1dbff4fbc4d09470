/** What one request carries, and its name: the same events of the same Window always make the same id. */
import { createHash } from 'node:crypto';
import type { AppendWindow } from '../../../src/connector/sink.ts';
import type { OutgoingEvent } from './event.ts';

export type BodyFormat = 'array' | 'ndjson' | 'single';

export const contentTypes: Record<BodyFormat, string> = {
  array: 'application/json',
  ndjson: 'application/x-ndjson',
  single: 'application/json',
};

export function bodyOf(events: readonly OutgoingEvent[], format: BodyFormat): Buffer {
  if (format === 'array') return Buffer.from(`[${events.map(({ json }) => json).join(',')}]`);
  if (format === 'ndjson') return Buffer.from(events.map(({ json }) => `${json}\n`).join(''));
  return Buffer.from(events[0]!.json);
}

/** Bytes of the body that these events will make: the separators and brackets are a byte an event, and one. */
export function bodyBytes(events: readonly OutgoingEvent[]): number {
  return events.reduce((sum, { bytes }) => sum + bytes + 1, 1);
}

/**
 * Every event's place is in it, not only the first and the last: with another number of lanes, or after a row went to
 * Quarantine, a batch may begin and end alike and hold other events. An endpoint that has seen the id would drop them.
 */
export function batchId(window: AppendWindow, events: readonly OutgoingEvent[]): string {
  const hash = windowHash(window);
  for (const { place } of events) hash.update(`/${place}`);
  return `tm_${hash.digest('base64url').slice(0, 32)}`;
}

/** A name for the whole Window, for its Receipt. */
export function windowId(window: AppendWindow): string {
  return `tmw_${windowHash(window).digest('base64url').slice(0, 32)}`;
}

function windowHash({ sourceId, destination, unit, sequence, from, to }: AppendWindow) {
  return createHash('sha256').update(JSON.stringify([sourceId, destination, unit, sequence, from, to]));
}
