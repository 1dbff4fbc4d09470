/** Waiting that ends: by the result, by a signal or by a time limit. */

/** The promise's own outcome, or the signal's reason as soon as it is aborted. What it left behind goes on unseen. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  promise.catch(() => {});
  if (signal.aborted) return Promise.reject(signal.reason);
  return new Promise<T>((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/** As abortable, for at most `limitMs`; then it rejects with what `late` makes. */
export async function within<T>(
  promise: Promise<T>,
  { limitMs, signal, late }: { limitMs: number; signal: AbortSignal; late: () => Error | Promise<Error> },
): Promise<T> {
  const timeout = new AbortController();
  const timer = setTimeout(() => timeout.abort(), limitMs);
  try {
    return await abortable(promise, AbortSignal.any([signal, timeout.signal]));
  } catch (error) {
    if (timeout.signal.aborted && error === timeout.signal.reason) throw await late();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
