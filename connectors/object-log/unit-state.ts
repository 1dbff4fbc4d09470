/** What the sink knows of a Unit at its destination: the latest manifest and the newest owner. */
import { TidemarkError } from '../../src/connector/failure.ts';
import type { AppendWindow, SinkContext } from '../../src/connector/sink.ts';
import { fenceKey } from './layout.ts';
import { findLatest, hasGenerations, type Manifest, readManifest } from './manifest.ts';
import type { ObjectStore } from './object-store.ts';

export class UnitState {
  readonly unit: string;
  /** Null where no Window was ever appended. */
  latest: Manifest | null = null;
  /** The largest token that a manifest or a fence mark shows. */
  token = 0n;
  /** True after the first sweep of this process. */
  swept = false;
  /** Whether the file list has generations: then older versions could not read it, and the manifests say so. */
  hasGenerations = false;
  /** The commit date on which this process last found nothing more to merge. */
  compactedOn: string | null = null;
  /** `_latest.sql` as this process last wrote it. */
  latestSql: string | null = null;
  readonly #store: ObjectStore;
  readonly #context: SinkContext;
  readonly #urlKey: string;

  constructor(store: ObjectStore, context: SinkContext, unit: string, urlKey: string) {
    this.#store = store;
    this.#urlKey = urlKey;
    this.#context = context;
    this.unit = unit;
  }

  /** Looks at the destination: it is the truth about what is held. */
  async refresh(): Promise<void> {
    const known = this.latest?.sequence ?? 0;
    const { sequence, fence } = await findLatest(this.#store, this.unit, known);
    if (sequence < known) this.latest = null;
    if (sequence !== known && sequence > 0) this.adopt(await readManifest(this.#store, this.unit, sequence));
    if (fence > this.token) this.token = fence;
  }

  /** @throws TidemarkError TM101 where the manifest was written for another source or destination. */
  adopt(manifest: Manifest): void {
    if (manifest.sourceId !== this.#context.sourceId || manifest.destination !== this.#context.destination) {
      throw new TidemarkError('TM101', `${this.#urlKey} already holds ${this.unit} of another pipeline`, {
        remedy: `Give every source and destination a ${this.#urlKey} of its own.`,
      });
    }
    if (this.latest === null || manifest.sequence >= this.latest.sequence) this.latest = manifest;
    if (hasGenerations(manifest)) this.hasGenerations = true;
    const token = BigInt(manifest.fencingToken);
    if (token > this.token) this.token = token;
  }

  /**
   * Whether the Window may be written (null), or is already held (its manifest).
   * @throws TidemarkError TM403 for a smaller token, TM404 where the destination's history does not fit the ledger's.
   */
  async decide(window: AppendWindow): Promise<Manifest | null> {
    if (window.fencingToken < this.token) {
      throw new TidemarkError('TM403', `${this.unit}: a worker with a newer fencing token was here`);
    }
    const held = this.latest?.sequence ?? 0;
    if (window.sequence <= held) {
      const manifest =
        window.sequence === held ? this.latest! : await readManifest(this.#store, this.unit, window.sequence);
      await this.take(window, manifest);
      return manifest;
    }
    if (window.sequence > held + 1 || (this.latest !== null && window.from < this.latest.to)) {
      throw new TidemarkError(
        'TM404',
        `${this.unit}: Window ${window.sequence} does not follow what the destination holds (Window ${held})`,
      );
    }
    return null;
  }

  /**
   * Accepts a manifest that exists for the Window's sequence as this Window's own.
   * @throws TidemarkError TM403 or TM404 where it has other bounds.
   */
  async take(window: AppendWindow, manifest: Manifest): Promise<void> {
    this.adopt(manifest);
    if (manifest.from !== window.from || manifest.to !== window.to) {
      const newer = BigInt(manifest.fencingToken) > window.fencingToken;
      throw new TidemarkError(
        newer ? 'TM403' : 'TM404',
        `${this.unit}: the destination holds Window ${window.sequence} with other bounds`,
      );
    }
    if (window.fencingToken > this.token) {
      // Nothing else would show the destination that a newer owner was here: its next manifest may be far off.
      const key = fenceKey(this.unit, this.latest!.sequence, window.fencingToken);
      await this.#store.put(key, Buffer.alloc(0));
      this.token = window.fencingToken;
    }
  }
}
