/**
 * Merges small files of closed dates and writes a new generation of the table's file list (generations.ts).
 *
 * Nothing of it is needed for delivery: it runs between Windows, a failure is logged, and whoever kills it at any point
 * leaves the list as it was, or as it is meant to be. Two workers may do it at once; the generation's number decides.
 * Merged files stay for `compact.grace`, so a reader may finish with the list it has.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { TidemarkError } from '../../src/connector/failure.ts';
import type { SinkContext } from '../../src/connector/sink.ts';
import type { CompactionChoice } from './compaction-options.ts';
import type { LogFormat } from './format.ts';
import { commitGeneration, type LiveFile, latestGeneration, mergeAttemptKey } from './generations.ts';
import { sequenceText, tableFolder } from './layout.ts';
import { liveFilesOf, manifestsAfter } from './live-files.ts';
import { localFiles } from './local-files.ts';
import { planMerges } from './merge-plan.ts';
import { dropRetired, sweepMerges } from './merge-sweep.ts';
import type { ObjectStore } from './object-store.ts';
import type { UnitState } from './unit-state.ts';
import { uploadFiles } from './upload.ts';

/** After so long a run ends with what it has; the next Window continues it. */
const runMs = 60_000;
/** Behind the newest generation; from here on one is written for the list's sake alone. */
const manyManifests = 1000;

interface Merge {
  sources: LiveFile[];
  path: string;
}

export class Compaction {
  readonly #store: ObjectStore;
  readonly #context: SinkContext;
  readonly #format: LogFormat;
  readonly #choice: CompactionChoice;
  /** Runs a piece of work when no encoder is at work. */
  readonly #inTurn: <T>(work: () => Promise<T>) => Promise<T>;
  #running: Promise<void> | null = null;
  #closing = false;

  constructor(
    store: ObjectStore,
    context: SinkContext,
    format: LogFormat,
    choice: CompactionChoice,
    inTurn: <T>(work: () => Promise<T>) => Promise<T>,
  ) {
    this.#store = store;
    this.#context = context;
    this.#format = format;
    this.#choice = choice;
    this.#inTurn = inTurn;
  }

  /** After an append: begins a run where one is due, and does not wait for it. One Unit at a time. */
  consider(state: UnitState): void {
    const { latest } = state;
    if (this.#choice.files === 0 || this.#format.merge === null || latest === null) return;
    if (this.#running !== null || this.#closing) return;
    const today = new Date(Number(BigInt(latest.commitTimeUs) / 1000n)).toISOString().slice(0, 10);
    if (state.compactedOn === today) return;
    this.#running = this.#run(state, today, latest.sequence)
      .catch((error) => {
        this.#context.log('warn', 'could not merge small files', {
          unit: state.unit,
          code: error instanceof TidemarkError ? error.code : 'TM901',
        });
        // Not at every Window again: the next day, or the next process.
        state.compactedOn = today;
      })
      .finally(() => {
        this.#running = null;
      });
  }

  /** Waits until the run is over, if there is one; it ends early. */
  async close(): Promise<void> {
    this.#closing = true;
    await this.#running;
  }

  async #run(state: UnitState, today: string, through: number): Promise<void> {
    const { unit } = state;
    const before = await latestGeneration(this.#store, unit);
    state.hasGenerations ||= before !== null;
    if (before !== null) await sweepMerges(this.#store, before);
    const retired = await dropRetired(this.#store, before, unit, this.#choice.graceMs);
    const files = [...(before?.files ?? [])];
    let manifests = 0;
    for await (const manifest of manifestsAfter(this.#store, unit, before?.through ?? 0)) {
      if (manifest.sequence > through) break;
      files.push(...liveFilesOf(manifest));
      manifests += 1;
    }
    const plan = planMerges(files, this.#format.encoder, today, this.#choice.files);
    if (plan.length === 0 && manifests < manyManifests) {
      state.compactedOn = today;
      return;
    }
    const nonce = randomBytes(6).toString('hex');
    const number = (before?.generation ?? 0) + 1;
    const merges = plan.map(([first, ...rest], part): Merge => {
      const folder = first!.path.slice(0, first!.path.lastIndexOf('/'));
      const name = `generation-${sequenceText(number)}-${nonce}-${part}.${this.#format.extension}`;
      return { sources: [first!, ...rest], path: `${folder}/${name}` };
    });
    const key = mergeAttemptKey(unit, number, nonce);
    const paths = merges.map(({ path }) => path);
    await this.#store.put(key, Buffer.from(JSON.stringify({ files: paths })));
    await this.#context.failpoint(`${this.#format.name}:before-merge`);
    const until = Date.now() + runMs;
    const done: { merge: Merge; file: LiveFile }[] = [];
    for (const merge of merges) {
      if (this.#closing || Date.now() > until) break;
      done.push({ merge, file: await this.#inTurn(() => this.#merge(unit, merge)) });
    }
    await this.#context.failpoint(`${this.#format.name}:before-generation`);
    const written = new Date().toISOString();
    const replaced = new Set(done.flatMap(({ merge }) => merge.sources.map(({ path }) => path)));
    const latest = state.latest!;
    const won =
      (done.length > 0 || plan.length === 0) &&
      (await commitGeneration(this.#store, {
        sourceId: latest.sourceId,
        destination: latest.destination,
        unit,
        generation: number,
        nonce,
        through,
        written,
        files: [...files.filter(({ path }) => !replaced.has(path)), ...done.map(({ file }) => file)],
        retired: [...retired, ...[...replaced].map((path) => ({ path, at: written }))],
      }));
    await this.#context.failpoint(`${this.#format.name}:after-generation`);
    if (!won) await this.#store.delete(paths.map((path) => `${tableFolder(unit)}/${path}`));
    await this.#store.delete([key]);
    if (!won) return;
    state.hasGenerations = true;
    if (done.length === merges.length) state.compactedOn = today;
    this.#context.log('info', 'merged small files', { unit, files: replaced.size, into: done.length });
  }

  async #merge(unit: string, { sources, path }: Merge): Promise<LiveFile> {
    const folder = join(this.#context.scratchDirectory, `merge-${randomBytes(6).toString('hex')}`);
    await mkdir(folder, { recursive: true });
    try {
      const { extension, contentType } = this.#format;
      const local = await localFiles(this.#store, unit, sources, folder, extension);
      const target = join(folder, `merged.${extension}`);
      const rows = sources.reduce((sum, file) => sum + file.rows, 0);
      await this.#format.merge!({ sources: local, target, folder, rows });
      const { size } = await stat(target);
      await uploadFiles(this.#store, unit, [{ localPath: target }], [path], contentType);
      const [{ tenant, date, encoder }, last] = [sources[0]!, sources.at(-1)!];
      const from = sources.map((file) => file.from).sort()[0]!;
      const longest = Math.max(...sources.map(({ longestLine }) => longestLine ?? 0));
      return {
        path,
        rows,
        bytes: size,
        tenant,
        date,
        ...(longest > 0 ? { longestLine: longest } : {}),
        encoder,
        from,
        sequence: last.sequence,
      };
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
}
