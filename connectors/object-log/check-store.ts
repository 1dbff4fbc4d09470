/** `tidemark check` of an object store: what it lets us do, tried for real on objects of its own. */
import { randomBytes } from 'node:crypto';
import { TidemarkError } from '../../src/connector/failure.ts';
import type { CheckFinding } from '../../src/connector/sink.ts';
import type { ObjectStore } from './object-store.ts';

/** One line per finding; stops at the first step that fails, since the later ones build on it. */
export async function checkStore(store: ObjectStore, urlKey: string): Promise<CheckFinding[]> {
  const findings: CheckFinding[] = [];
  const folder = `_tidemark_check/${randomBytes(6).toString('hex')}/`;
  const [plain, conditional] = [`${folder}plain`, `${folder}conditional`];
  const body = Buffer.from('tidemark check');
  const step = async (what: string, action: () => Promise<string | null>): Promise<boolean> => {
    try {
      const remedy = await action();
      findings.push({ level: remedy === null ? 'ok' : 'error', what, remedy });
      return remedy === null;
    } catch (error) {
      const failure =
        error instanceof TidemarkError ? error : new TidemarkError('TM901', 'unexpected failure');
      findings.push({ level: 'error', what: `${what}: ${failure.message}`, remedy: failure.remedy });
      return false;
    }
  };
  const passed =
    (await step(`${urlKey} is reachable and can be listed`, async () => {
      await store.listPage(folder, null, 1);
      return null;
    })) &&
    (await step('objects can be written', async () => {
      await store.put(plain, body);
      return null;
    })) &&
    (await step('objects can be read back', async () =>
      (await store.get(plain))?.equals(body) ? null : 'The store did not return what was written.',
    )) &&
    (await step('conditional writes are honoured', async () => {
      const first = await store.putIfAbsent(conditional, body);
      const second = await store.putIfAbsent(conditional, body);
      return first === 'written' && second === 'exists'
        ? null
        : 'This store ignores If-None-Match, so two workers could both commit a Window: use a server that supports conditional writes.';
    }));
  await step('objects can be deleted', async () => {
    await store.delete([plain, conditional]);
    return (await store.get(plain)) === null && (await store.get(conditional)) === null
      ? null
      : 'Grant s3:DeleteObject on the prefix (file: write rights on the directory).';
  });
  // Deleting after a failed write proves nothing by itself.
  return passed
    ? findings
    : findings.filter(({ level }, index) => level === 'error' || index < findings.length - 1);
}
