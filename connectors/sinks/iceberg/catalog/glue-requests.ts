/** What all requests to Glue's own API have in common. */
import { TidemarkError } from '../../../../src/connector/failure.ts';
import type { Namespace } from './catalog.ts';
import { glueFailure, isMissing } from './glue-failures.ts';

/** @throws TidemarkError for whatever Glue has against it */
export async function run<T>(what: string, request: () => Promise<T>): Promise<T> {
  try {
    return await request();
  } catch (error) {
    throw glueFailure(error, what);
  }
}

/** As run; null where Glue does not know what it is about. */
export function orAbsent<T>(what: string, request: () => Promise<T>): Promise<T | null> {
  return run(what, () =>
    request().catch((error: unknown) => {
      if (isMissing(error)) return null;
      throw error;
    }),
  );
}

/** @throws TidemarkError TM405 for more than one level */
export function databaseOf(namespace: Namespace): string {
  if (namespace.length === 1) return nameOf(namespace[0]!);
  throw new TidemarkError('TM405', `Glue has one level of databases: ${namespace.join('.')} has more`, {
    remedy: 'Set iceberg.namespace to a single name.',
  });
}

/** Glue folds capitals: two names could become one, so they are refused. */
export function nameOf(name: string): string {
  if (/^[a-z0-9_]{1,252}$/.test(name)) return name;
  throw new TidemarkError('TM405', 'Glue takes names of lower-case letters, digits and _ only', {
    remedy: 'Give the destination’s tables other names.',
  });
}
