/** Windows that come again, come late, or do not follow. */
import { expect, test } from 'vitest';
import { change, everything, user, users } from '../example-tables.ts';
import type { Subject } from '../subject.ts';
import type { InTrial } from '../suite.ts';
import { expectRefusal, type Trial } from '../trial.ts';

export function replayCases(subject: Subject, inTrial: InTrial): void {
  const keyless = subject.refuses.keyless === undefined;

  test(
    'a Receipt says what it covers',
    inTrial(async (trial) => {
      const writer = await trial.open();
      trial.source.keyed(users).insert(user(1), user(2));
      const plan = trial.cutOne();
      const receipt = await writer.write(plan);
      expect(receipt.position).toBe(plan.to);
      expect(receipt.alreadyHeld).toBe(false);
      expect(receipt.contentHash).toMatch(/^[0-9a-f]{32}$/);
      expect(receipt.commitId).not.toBe('');
      expect(receipt.bytes).toBeGreaterThan(0);
      expect(receipt.rows.upserted + receipt.rows.appended).toBe(2);
    }),
  );

  if (subject.mode === 'send') {
    test(
      'a Window that is sent again names every Change as it did before',
      inTrial(async (trial) => {
        const source = everything(trial.source, { keyless });
        const writer = await trial.open();
        change(source, 1);
        const plans = await trial.deliver(writer);
        await trial.expectSame();
        for (const plan of plans) await writer.write(plan);
        await trial.expectSame();
        const successor = await trial.open();
        for (const plan of plans) await successor.write(plan);
        change(source, 2);
        await trial.deliver(successor);
        await trial.expectSame();
      }),
    );
    return;
  }

  test(
    'a Window that is there already is answered as held, and changes nothing',
    inTrial(async (trial) => {
      const source = everything(trial.source, { keyless });
      const writer = await trial.open();
      for (const n of [1, 2]) {
        change(source, n);
        for (const plan of trial.cut()) {
          const first = await writer.write(plan);
          expect(first.alreadyHeld).toBe(false);
          const again = await writer.write(plan);
          expect(again).toEqual({ ...first, alreadyHeld: true });
        }
        await trial.expectSame();
      }
    }),
  );

  test(
    'held() says where each Unit stands, and nothing before its first Window',
    inTrial(async (trial) => {
      const source = everything(trial.source, { keyless });
      const writer = await trial.open();
      change(source, 1);
      for (const plan of trial.cut()) {
        expect(await writer.held(plan.unit)).toBeNull();
        await writer.write(plan);
        const held = { position: plan.to, sequence: 1, fencingToken: writer.token };
        expect(await writer.held(plan.unit)).toEqual(held);
        const successor = await trial.open();
        expect(await successor.held(plan.unit)).toEqual(held);
        await successor.write(plan);
        expect(await successor.held(plan.unit)).toEqual({ ...held, fencingToken: successor.token });
        await writer.close();
        break;
      }
    }),
  );

  test(
    'older Windows again, by a new owner, change nothing',
    inTrial(async (trial) => {
      const source = everything(trial.source, { keyless });
      const writer = await trial.open();
      const written = [];
      for (const n of [1, 2, 3]) {
        change(source, n);
        written.push(...(await trial.deliver(writer)));
      }
      const successor = await trial.open();
      for (const plan of written) {
        const receipt = await successor.write(plan);
        expect(receipt.alreadyHeld).toBe(true);
        expect(receipt.position >= plan.to).toBe(true);
      }
      await trial.expectSame();
      change(source, 4);
      await trial.deliver(successor);
      await trial.expectSame();
    }),
  );

  test(
    'a Window that does not follow is refused, and nothing of it is seen',
    inTrial(async (trial) => {
      const { table, writer } = await oneTable(trial);
      await trial.deliver(writer);
      table.insert(user(2));
      const skipped = trial.cutOne();
      table.insert(user(3));
      const next = trial.cutOne();
      await expectRefusal(writer.write(next), 'TM404');
      await writer.write(skipped);
      await trial.expectSame(skipped);
      await expectRefusal(writer.write({ ...next, from: skipped.from }), 'TM404');
      await expectRefusal(writer.write({ ...skipped, to: next.to, parts: next.parts }), 'TM404');
      await trial.expectSame(skipped);
      await writer.write(next);
      await trial.expectSame();
    }),
  );

  test(
    'a first Window that is not the first is refused',
    inTrial(async (trial) => {
      const { writer } = await oneTable(trial);
      const plan = trial.cutOne();
      await expectRefusal(writer.write({ ...plan, sequence: 2 }), 'TM404');
      await writer.write(plan);
      await trial.expectSame();
    }),
  );

  test(
    'a Window may begin after the end of the one before: those without rows are not written',
    inTrial(async (trial) => {
      const { table, writer } = await oneTable(trial);
      await trial.deliver(writer);
      const idle = trial.source.next().position;
      table.insert(user(2));
      await writer.write({ ...trial.cutOne(), from: idle });
      await trial.expectSame();
    }),
  );
}

async function oneTable(trial: Trial) {
  const table = trial.source.keyed(users);
  table.insert(user(1));
  return { table, writer: await trial.open() };
}
