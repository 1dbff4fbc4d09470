/** What stops the sink at a table or file that it cannot go on with. No text of a file is repeated: it may hold values. */
import { TidemarkError } from '../../../src/connector/failure.ts';

/** A file or answer does not hold what the specification says. */
export function malformed(what: string, cause?: unknown): TidemarkError {
  return new TidemarkError('TM405', what, {
    ...(cause === undefined ? {} : { cause }),
    remedy:
      'Read the table with the tool that writes it. If it cannot either, restore its files, or drop it and bring its rows anew with `tidemark destination resync`.',
  });
}

/** Valid, but not something that this sink works with. */
export function unsupported(what: string, remedy: string): TidemarkError {
  return new TidemarkError('TM405', what, { remedy });
}
