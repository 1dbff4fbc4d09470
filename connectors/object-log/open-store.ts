/** The store of a location; the AWS SDK is loaded only where it is needed. */
import { TidemarkError } from '../../src/connector/failure.ts';
import type { CheckFinding, OptionValues } from '../../src/connector/sink.ts';
import { type Location, locationFrom } from './location.ts';
import type { ObjectStore } from './object-store.ts';

/** @throws TidemarkError TM101, TM102 or TM402 where the place cannot be opened as it is configured. */
export async function openStore(location: Location): Promise<ObjectStore> {
  if (location.kind === 'file') return (await import('./file-store.ts')).FileStore.open(location);
  return (await import('./s3-store.ts')).S3Store.open(location);
}

/** `SinkKind.check` of a sink on an object store. */
export async function checkLocation(values: OptionValues, urlKey: string): Promise<CheckFinding[]> {
  const { checkStore } = await import('./check-store.ts');
  let store: ObjectStore;
  try {
    store = await openStore(locationFrom(values, urlKey));
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    return [{ level: 'error', what: error.message, remedy: error.remedy }];
  }
  try {
    return await checkStore(store, urlKey);
  } finally {
    await store.close();
  }
}
