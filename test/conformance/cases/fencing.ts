/** Two workers that both believe a Unit is theirs. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { TidemarkError } from '../../../src/connector/failure.ts';
import { change, everything } from '../example-tables.ts';
import { gateAt, settled } from '../gate.ts';
import type { Subject } from '../subject.ts';
import type { InTrial } from '../suite.ts';
import { expectRefusal } from '../trial.ts';

/** How long the heir works alone, where the destination lets it, before the zombie goes on. */
const headStartMs = 300;

export function fencingCases(subject: Subject, inTrial: InTrial): void {
  const keyless = subject.refuses.keyless === undefined;
  const fences = subject.mode !== 'send';

  test.each(subject.failpoints)('one that hung at %s while another took over adds nothing', (name) =>
    inTrial(async (trial) => {
      const source = everything(trial.source, { keyless });
      const gate = gateAt(name);
      const zombie = await trial.open({ failpoint: gate.failpoint });
      change(source, 1);
      await trial.deliver(zombie);
      change(source, 2);
      const [plan, ...others] = trial.cut();
      gate.close();
      const stuck = settled(zombie.write(plan!));
      const heir = await trial.open();
      let takeover: Promise<unknown>;
      try {
        await gate.waitsBefore(stuck);
        takeover = heir.writeUntilTaken(plan!);
        await Promise.race([takeover, sleep(headStartMs)]);
      } finally {
        gate.open();
      }
      const outcome = await stuck;
      await takeover;
      // It was faster, or it was shut out; the heir's Window in its place may also have looked like a lost connection.
      if (outcome instanceof TidemarkError) expect(['TM401', 'TM403']).toContain(outcome.code);
      else expect(outcome).toMatchObject({ position: plan!.to });
      for (const other of others) await heir.write(other);
      await trial.expectSame();
      change(source, 3);
      const next = trial.cut();
      if (fences) {
        await expectRefusal(zombie.write(next[0]!), 'TM403');
        await trial.expectSame(plan);
      }
      for (const each of next) expect((await heir.write(each)).alreadyHeld).toBe(false);
      await trial.expectSame();
    })(),
  );

  test(
    'rows that stop with TM403 end the Window with it',
    inTrial(async (trial) => {
      const source = everything(trial.source, { keyless });
      const writer = await trial.open();
      change(source, 1);
      const [first] = await trial.deliver(writer);
      change(source, 2);
      const plans = trial.cut();
      const lost = new TidemarkError('TM403', 'this worker gave the Unit up');
      await expect(writer.write(plans[0]!, (batches) => stopping(batches, lost))).rejects.toBe(lost);
      if (fences) await trial.expectSame(first);
      const heir = await trial.open();
      for (const plan of plans) await heir.write(plan);
      await trial.expectSame();
    }),
  );

  if (!fences) return;

  test(
    'the one with the smaller token is shut out, and nothing of it is seen',
    inTrial(async (trial) => {
      const source = everything(trial.source, { keyless });
      const old = await trial.open();
      change(source, 1);
      await trial.deliver(old);
      const heir = await trial.open();
      change(source, 2);
      const [second] = await trial.deliver(heir);
      await expectRefusal(old.write(second!), 'TM403');
      change(source, 3);
      const third = trial.cut();
      for (const plan of third) {
        if (plan.unit === second!.unit) await expectRefusal(old.write(plan), 'TM403');
      }
      await trial.expectSame(second);
      for (const plan of third) expect((await heir.write(plan)).alreadyHeld).toBe(false);
      await trial.expectSame();
    }),
  );

  test(
    'a new owner shuts the old one out with the Window that it finds there',
    inTrial(async (trial) => {
      const source = everything(trial.source, { keyless });
      const old = await trial.open();
      change(source, 1);
      const plans = await trial.deliver(old);
      const heir = await trial.open();
      for (const plan of plans) expect((await heir.write(plan)).alreadyHeld).toBe(true);
      change(source, 2);
      const next = trial.cut();
      for (const plan of next) await expectRefusal(old.write(plan), 'TM403');
      await trial.expectSame(plans[0]);
      for (const plan of next) await heir.write(plan);
      await trial.expectSame();
    }),
  );
}

async function* stopping<T>(batches: AsyncIterable<T[]>, error: Error): AsyncGenerator<T[]> {
  for await (const batch of batches) {
    yield batch;
    throw error;
  }
}
