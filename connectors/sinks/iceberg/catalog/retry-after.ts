/** Hours of silence would hide that the server is back: whatever it asks for, it is tried again after this. */
const longestWaitMs = 3_600_000;

/** Seconds or an HTTP date (RFC 9110, 10.2.3); null for anything else, also for a moment that is over. */
export function retryAfterOf(value: string | string[] | undefined, now: number): number | null {
  if (typeof value !== 'string') return null;
  const text = value.trim();
  const wait = /^\d{1,9}$/.test(text) ? Number(text) * 1000 : Date.parse(text) - now;
  return wait > 0 ? Math.min(wait, longestWaitMs) : null;
}
