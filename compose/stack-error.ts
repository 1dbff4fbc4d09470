import { TidemarkError } from '../src/platform/errors.ts';

/** A failure of the local stack that somebody at the keyboard can mend. */
export function stackError(message: string, remedy: string, cause?: unknown): TidemarkError {
  return new TidemarkError('TM901', message, { remedy, cause, retry: 'operator' });
}
