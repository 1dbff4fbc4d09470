/** What an operator or the network does to a destination, and how it goes on. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { CheckFinding, OptionValues, SinkContext } from '../../../src/connector/sink.ts';
import type { ErrorCode } from '../../../src/platform/errors.ts';
import { change, everything, user, users } from '../example-tables.ts';
import { gateAt, settled } from '../gate.ts';
import type { Circumstance, Subject } from '../subject.ts';
import type { InTrial } from '../suite.ts';
import { expectRefusal, failure, type Trial } from '../trial.ts';
import { names, type WindowPlan } from '../windows.ts';

/** An operator who looks meanwhile sees the reason; connecting may take its time to fail. */
const promptMs = 20_000;

export function failureCases(subject: Subject, inTrial: InTrial): void {
  const keyless = subject.refuses.keyless === undefined;

  test(
    'a server that is down is TM401 promptly, and delivery goes on by itself',
    inTrial(async (trial) => {
      const source = everything(trial.source, { keyless });
      const writer = await trial.open();
      change(source, 1);
      await trial.deliver(writer);
      change(source, 2);
      const plans = trial.cut();
      await trial.stage.server.whileDown(async () => {
        const begun = Date.now();
        for (const plan of plans) await expectRefusal(writer.write(plan), 'TM401');
        expect(Date.now() - begun).toBeLessThan(promptMs * plans.length);
        // A worker that starts meanwhile meets the same.
        await expectRefusal(openAndWrite(trial, plans[0]!), 'TM401');
      });
      for (const plan of plans) await writer.writeUntilTaken(plan);
      await trial.expectSame();
    }),
  );

  test.each(subject.failpoints)('a server that goes down at %s: the Window is there once', (name) =>
    inTrial(async (trial) => {
      const source = everything(trial.source, { keyless });
      const gate = gateAt(name);
      const writer = await trial.open({ failpoint: gate.failpoint });
      change(source, 1);
      await trial.deliver(writer);
      change(source, 2);
      const [plan, ...others] = trial.cut();
      gate.close();
      const work = settled(writer.write(plan!));
      try {
        await gate.waitsBefore(work);
        await trial.stage.server.whileDown(async () => {
          gate.open();
          const outcome = await work;
          // Past the place where the destination has everything there is nothing left to fail.
          if (outcome instanceof Error) await expectRefusal(Promise.reject(outcome), 'TM401');
          else expect(outcome).toMatchObject({ position: plan!.to });
        });
      } finally {
        gate.open();
      }
      for (const each of [plan!, ...others]) await writer.writeUntilTaken(each);
      await trial.expectSame();
    })(),
  );

  circumstance('refused credentials', 'credentials that the server refuses are TM402', async (trial) => {
    const refusedOptions = trial.place.refusedOptions!;
    trial.source.keyed(users).insert(user(1));
    const plan = trial.cutOne();
    await expectRefusal(openAndWrite(trial, plan, refusedOptions), 'TM402');
    const findings = await checked(trial, refusedOptions);
    trial.stage.witness.log('check', 'findings', { findings });
    expect(findings.filter(({ level }) => level === 'error')).not.toEqual([]);
    const writer = await trial.open();
    await writer.write(plan);
    await trial.expectSame();
  });

  test(
    'check finds nothing wrong with a good place, and each finding has its remedy',
    inTrial(async (trial) => {
      const findings = await checked(trial, trial.place.options);
      expect(findings.length).toBeGreaterThan(0);
      expect(findings.filter(({ level }) => level === 'error')).toEqual([]);
      for (const { level, remedy } of findings) expect(remedy === null).toBe(level === 'ok');
      trial.stage.witness.log('check', 'findings', { findings });
    }),
  );

  const states = [
    {
      what: 'throttling',
      title: 'a server that asks to be left alone',
      method: 'whileThrottled',
      codes: ['TM401'],
    },
    {
      what: 'no room',
      title: 'a server without room',
      method: 'whileFull',
      codes: ['TM401', 'TM405', 'TM406'],
    },
  ] as const;
  for (const { what, title, method, codes } of states) {
    circumstance(
      what,
      `${title}: nothing of the Window is seen, and delivery goes on once it is over`,
      async (trial) => {
        const source = everything(trial.source, { keyless });
        const writer = await trial.open();
        change(source, 1);
        const [first] = await trial.deliver(writer);
        change(source, 2);
        const plans = trial.cut();
        await trial.place[method]!(async () => {
          const { code } = await failure(writer.write(plans[0]!));
          expect(codes as readonly ErrorCode[]).toContain(code);
          await sleep(50);
          await failure(writer.write(plans[0]!));
        });
        if (subject.mode !== 'send') await trial.expectSame(first);
        for (const plan of plans) await writer.writeUntilTaken(plan);
        await trial.expectSame();
      },
    );
  }

  /** What the server cannot be brought into, the kind's README must say is not proven. */
  function circumstance(what: Circumstance, title: string, work: (trial: Trial) => Promise<void>): void {
    const words = subject.unproven?.[what];
    if (words === undefined) test(title, inTrial(work));
    else
      test(`the README says that ${what} is not proven`, () => {
        const { readme = `connectors/sinks/${subject.kind.name}/README.md` } = subject;
        const file = new URL(`../../../${readme}`, import.meta.url);
        expect(readFileSync(file, 'utf8').replaceAll(/\s+/g, ' ')).toContain(words);
      });
  }
}

async function openAndWrite(trial: Trial, plan: WindowPlan, options?: OptionValues): Promise<void> {
  const writer = await trial.open(options ? { options } : {});
  await writer.held(plan.unit);
  await writer.write(plan);
}

function checked(trial: Trial, options: OptionValues): Promise<CheckFinding[]> {
  const { subject, witness, folder } = trial.stage;
  const context: SinkContext = {
    ...names,
    scratchDirectory: folder,
    log: (level, message, fields) => witness.log(level, message, fields),
    failpoint: async () => undefined,
  };
  return subject.kind.check(context, options);
}
