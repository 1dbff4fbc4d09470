/** What an error of DuckDB means. Its messages quote values ("Could not convert string '…'"): never repeat them. */
import { TidemarkError } from '../../src/connector/failure.ts';

/** @param memoryKey the option that caps DuckDB's memory */
export function duckdbFailure(error: unknown, what: string, memoryKey: string): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const message = error instanceof Error ? error.message : '';
  const kind = /^([A-Z][A-Za-z -]{2,30}) Error/.exec(message)?.[1] ?? 'Unknown';
  if (kind === 'Out of Memory') {
    return new TidemarkError('TM406', `DuckDB ran out of memory: cannot ${what}`, {
      remedy: `Raise ${memoryKey}, and see that the scratch directory has free space.`,
    });
  }
  if (kind === 'IO') {
    return new TidemarkError('TM406', `DuckDB cannot read or write its files: cannot ${what}`, {
      remedy: 'Free space in the scratch directory (deliver.spill.directory) and check its rights.',
    });
  }
  if (kind === 'Conversion' || kind === 'Invalid Input') {
    return new TidemarkError('TM405', `a value does not fit its column's type: cannot ${what} (${kind})`);
  }
  return new TidemarkError('TM901', `DuckDB: cannot ${what} (${kind} error)`);
}
