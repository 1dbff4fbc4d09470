/** A worker dies in the middle; the next one goes on with the same Window. */
import { expect, test } from 'vitest';
import { change, everything } from '../example-tables.ts';
import type { Subject } from '../subject.ts';
import type { InTrial } from '../suite.ts';
import type { Trial, Writer } from '../trial.ts';

/** Not an error that a sink knows. */
class Crash extends Error {}

export function crashCases(subject: Subject, inTrial: InTrial): void {
  const keyless = subject.refuses.keyless === undefined;

  test.each(subject.failpoints)('at %s: the next owner writes the Window, and it is there once', (name) =>
    inTrial(async (trial) => {
      const source = everything(trial.source, { keyless });
      for (const n of [1, 2, 3]) {
        change(source, n);
        let crashed = false;
        const doomed = await trial.open({
          failpoint: async (passed) => {
            if (passed !== name || crashed) return;
            crashed = true;
            throw new Crash('the worker died here');
          },
        });
        const plans = trial.cut();
        await writeUntilCrash(doomed, plans);
        expect(crashed, `failpoint ${name} was passed`).toBe(true);
        await doomed.close();
        const heir = await trial.open();
        for (const plan of plans) await heir.writeUntilTaken(plan);
        await trial.expectSame();
        await heir.close();
      }
    })(),
  );

  test(
    'after the write and before its acknowledgement: the next owner finds it',
    inTrial(async (trial) => {
      const source = everything(trial.source, { keyless });
      const doomed = await trial.open();
      change(source, 1);
      await trial.deliver(doomed);
      change(source, 2);
      const plans = trial.cut();
      for (const plan of plans) await doomed.write(plan);
      await doomed.close();
      const heir = await trial.open();
      for (const plan of plans) {
        if (subject.mode !== 'send') {
          expect(await heir.held(plan.unit)).toMatchObject({ position: plan.to, sequence: plan.sequence });
        }
        expect((await heir.write(plan)).alreadyHeld).toBe(subject.mode !== 'send');
      }
      await trial.expectSame();
    }),
  );

  test(
    'while rows come: the error passes through as it is, and the same sink goes on',
    inTrial(async (trial) => {
      const source = everything(trial.source, { keyless });
      const writer = await trial.open();
      change(source, 1);
      const [first] = await trial.deliver(writer);
      change(source, 2);
      const plans = trial.cut();
      const broken = new Crash('the store broke');
      for (const plan of plans) {
        const failing = writer.write(plan, (batches) => endingWith(batches, broken));
        await expect(failing).rejects.toBe(broken);
      }
      if (subject.mode !== 'send') await trial.expectSame(first);
      for (const plan of plans) await writer.write(plan);
      await trial.expectSame();
    }),
  );
}

async function writeUntilCrash(doomed: Writer, plans: ReturnType<Trial['cut']>): Promise<void> {
  for (const plan of plans) {
    const outcome = await doomed.write(plan).catch((error: unknown) => error);
    if (outcome instanceof Error) return;
  }
}

async function* endingWith<T>(batches: AsyncIterable<T[]>, error: Error): AsyncGenerator<T[]> {
  for await (const batch of batches) {
    yield batch;
    throw error;
  }
}
