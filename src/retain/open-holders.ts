/** Sinks of destinations that are asked what they have: opened when first asked, closed together. */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Sink, SinkContext, SinkKind } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import { failpoint } from '../platform/failpoint.ts';
import type { Logger } from '../platform/log.ts';
import type { DestinationConfig } from '../platform/resolved-config.ts';

export interface HolderPlace {
  destinations: readonly DestinationConfig[];
  sinkKinds: ReadonlyMap<string, SinkKind>;
  sourceId: string;
  /** For folders of temporary files. */
  spillDirectory: string;
  log: Logger;
}

/** One that keeps rows. */
export type Holder = Exclude<Sink, { mode: 'send' }>;

interface Opened {
  sink: Holder;
  scratchDirectory: string;
}

let serial = 0;

export class OpenHolders {
  readonly #place: HolderPlace;
  readonly #opened = new Map<string, Opened>();

  constructor(place: HolderPlace) {
    this.#place = place;
  }

  /** @throws TidemarkError TM508 where it is no destination that keeps rows; what its sink throws */
  async sink(destination: string): Promise<Holder> {
    const known = this.#opened.get(destination);
    if (known) return known.sink;
    const { destinations, sinkKinds, sourceId, spillDirectory, log } = this.#place;
    const instance = destinations.find(({ name }) => name === destination);
    const kind = instance && sinkKinds.get(instance.kind);
    if (!kind) throw new TidemarkError('TM508', `${destination} is not among the destinations any more`);
    const scratchDirectory = join(spillDirectory, destination, `retain-${process.pid}-${serial++}`);
    await mkdir(scratchDirectory, { recursive: true });
    const named = log.child({ destination });
    const context: SinkContext = {
      sourceId,
      destination,
      scratchDirectory,
      log: (level, message, fields) => named[level](message, fields),
      failpoint,
    };
    const sink = await kind.open(context, instance.options);
    if (sink.mode === 'send') {
      await sink.close();
      throw new TidemarkError('TM508', `${destination} keeps no rows`);
    }
    this.#opened.set(destination, { sink, scratchDirectory });
    return sink;
  }

  async close(): Promise<void> {
    for (const { sink, scratchDirectory } of this.#opened.values()) {
      await sink.close().catch(() => {});
      await rm(scratchDirectory, { recursive: true, force: true });
    }
    this.#opened.clear();
  }
}
