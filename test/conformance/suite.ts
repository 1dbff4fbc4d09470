/**
 * What every sink must do, whatever it writes to. Driven through the SDK alone: a source in memory (source.ts) is cut
 * into Windows (windows.ts), a sink writes them, and what a stranger reads at the destination is compared with the
 * source (expectations.ts). The behaviours are in cases/, one theme per file.
 *
 * No case is skipped in silence: what a kind cannot have is in `Subject.refuses` and must be refused, and cases of
 * another mode are not made.
 */
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { crashCases } from './cases/crashes.ts';
import { failureCases } from './cases/failures.ts';
import { fencingCases } from './cases/fencing.ts';
import { nameCases } from './cases/names.ts';
import { randomCases } from './cases/random.ts';
import { refusedRowCases } from './cases/refused-rows.ts';
import { replayCases } from './cases/replay.ts';
import { retiredCases } from './cases/retired.ts';
import { rowCases } from './cases/rows.ts';
import { shapeCases } from './cases/shapes.ts';
import { sizeCases } from './cases/sizes.ts';
import { snapshotCases } from './cases/snapshots.ts';
import { toastCases } from './cases/toast.ts';
import { valueCases } from './cases/values.ts';
import type { Subject } from './subject.ts';
import { type Stage, Trial } from './trial.ts';
import { Witness } from './witness.ts';

/** Makes a test of work in a place that no other case has seen. */
export type InTrial = (work: (trial: Trial) => Promise<void>) => () => Promise<void>;

export function conformance(subject: Subject): void {
  vi.setConfig({ testTimeout: 120_000, hookTimeout: 300_000 });
  describe(`${subject.name ?? subject.kind.name} conforms`, () => {
    let stage: Stage | null = null;
    beforeAll(async () => {
      const root = resolve(import.meta.dirname, '..', '..', '.tidemark');
      await mkdir(root, { recursive: true });
      const folder = await mkdtemp(join(root, `conformance-${subject.kind.name}-`));
      // When root runs the tests, some servers are another user.
      await chmod(folder, 0o755);
      stage = { subject, server: await subject.start(folder), witness: new Witness(), folder };
    });
    afterAll(async () => {
      await stage?.server.stop();
      if (stage) await rm(stage.folder, { recursive: true, force: true });
    });
    const inTrial: InTrial = (work) => () => Trial.run(stage!, work);

    describe('the same Window again', () => replayCases(subject, inTrial));
    if (!subject.storageOnly) {
      describe('rows', () => rowCases(subject, inTrial));
      describe('unchanged TOAST', () => toastCases(subject, inTrial));
      describe('rows that the source let go of', () => retiredCases(subject, inTrial));
      describe('changes of shape', () => shapeCases(subject, inTrial));
      describe('values', () => valueCases(subject, inTrial));
    }
    describe('snapshots', () => snapshotCases(subject, inTrial));
    describe('names', () => nameCases(subject, inTrial));
    describe('sizes', () => sizeCases(subject, inTrial));
    describe('crashes', () => crashCases(subject, inTrial));
    describe('two writers', () => fencingCases(subject, inTrial));
    describe('a destination that fails', () => failureCases(subject, inTrial));
    if (subject.refusedRow !== null)
      describe('rows that the destination refuses', () => refusedRowCases(subject, inTrial));
    describe('by chance', () => randomCases(subject, inTrial));

    describe('in all of these', () => {
      test('the sink passed the failpoints that its subject names, and no others', () => {
        expect([...stage!.witness.failpoints].sort()).toEqual([...subject.failpoints].sort());
      });

      test('no error and no log line held a value, a password or a key', () => {
        expect(stage!.witness.leaks()).toEqual([]);
      });
    });
  });
}
