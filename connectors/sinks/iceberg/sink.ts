/** The sink: Windows one after the other. */
import { join } from 'node:path';
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { TableShape } from '../../../src/connector/shape.ts';
import type {
  Held,
  Maintainable,
  MergeSink,
  MergeWindow,
  Position,
  Readable,
  Receipt,
  Row,
  SinkContext,
  Tag,
  Taggable,
  UpkeepDone,
  UpkeepRequest,
} from '../../../src/connector/sink.ts';
import { StaleMerge } from './commit/table-commit.ts';
import { Lake } from './lake.ts';
import type { IcebergSettings } from './options.ts';
import { TableCache } from './plan/table-cache.ts';
import { checkToken, decideMerge, ProgressTable } from './progress/progress-table.ts';
import { sweepAttempts } from './progress/sweep-attempts.ts';
import { readRows } from './read-back.ts';
import { dropTag, readTags, type TagPlace, tagTables } from './tag/tag-tables.ts';
import type { UpkeepPlace } from './upkeep/commit-upkeep.ts';
import { maintain } from './upkeep/maintain.ts';
import { Tidying } from './upkeep/tidying.ts';
import { WindowMerge } from './window-merge.ts';

/** Times that a Window is merged anew because others changed the tables meanwhile. */
const mergeTries = 5;

export class IcebergSink implements MergeSink, Readable, Maintainable, Taggable {
  readonly mode = 'merge';
  readonly #context: SinkContext;
  readonly #settings: IcebergSettings;
  readonly #cache: TableCache;
  #lake: Promise<Lake> | null = null;
  /** The token that this process took the Unit over with; null until it did, and after every failure. */
  #owned: bigint | null = null;
  #turn: Promise<unknown> = Promise.resolve();
  /** Windows that wait for their turn. */
  #waiting = 0;
  readonly #tidying: Tidying;

  constructor(context: SinkContext, settings: IcebergSettings) {
    this.#context = context;
    this.#settings = settings;
    this.#tidying = new Tidying(settings);
    this.#cache = new TableCache(join(context.scratchDirectory, 'files'), settings.cacheBytes, (bytes) =>
      context.log(
        'warn',
        'the index of a table needs more than iceberg.cache.bytes: each Window makes it anew',
        {
          bytes,
        },
      ),
    );
  }

  /** @throws TidemarkError TM401, TM402, TM405 */
  async held(_unit: string): Promise<Held | null> {
    return (await this.#progressTable()).held();
  }

  /** @throws TidemarkError TM401 to TM405, TM407; errors of the Window's own row streams unchanged */
  mergeWindow(window: MergeWindow): Promise<Receipt> {
    this.#waiting += 1;
    return this.#inTurn(async () => {
      this.#waiting -= 1;
      const receipt = await this.#mergeInTurn(window);
      if (!receipt.alreadyHeld && this.#tidying.note(window)) void this.#inTurn(() => this.#tidy());
      return receipt;
    });
  }

  /** Whatever becomes of it, Windows go on. */
  async #tidy(): Promise<void> {
    try {
      const place = await this.#upkeepPlace();
      if (place) await this.#tidying.run(place, () => this.#waiting > 0);
    } catch {
      // Neither catalog nor store answers: the next Window says so.
    }
  }

  async #upkeepPlace(): Promise<UpkeepPlace | null> {
    const lake = await this.#openLake();
    const progress = await (await this.#progressTable()).load();
    return (
      progress && { lake, context: this.#context, settings: this.#settings, cache: this.#cache, progress }
    );
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work, work);
    this.#turn = turn;
    return turn;
  }

  /** @throws TidemarkError TM401, TM402, TM405, TM406 */
  maintain(request: UpkeepRequest): Promise<UpkeepDone[]> {
    return this.#inTurn(async () => {
      const place = await this.#upkeepPlace();
      // Nothing was ever delivered.
      if (!place) return [];
      return maintain(place, request);
    });
  }

  tag(name: string): Promise<Tag> {
    return this.#inTurn(async () => tagTables(await this.#tagPlace(), name));
  }

  async tags(): Promise<Tag[]> {
    const progress = await (await this.#progressTable()).load();
    return progress === null ? [] : readTags(progress);
  }

  dropTag(name: string): Promise<Tag | null> {
    return this.#inTurn(async () => dropTag(await this.#tagPlace(), name));
  }

  async #tagPlace(): Promise<TagPlace> {
    const place = await this.#upkeepPlace();
    if (place) return { ...place, namespace: this.#settings.namespace };
    throw new TidemarkError('TM408', `${this.#context.destination} holds nothing yet`, {
      remedy: 'Wait for its first Window: `tidemark status`.',
    });
  }

  async *readTable(shape: TableShape, at: Position, retired?: (rows: Row[]) => void): AsyncIterable<Row[]> {
    const lake = await this.#openLake();
    const held = await (await this.#progressTable()).held();
    if (held && held.position > at) {
      throw new TidemarkError(
        'TM408',
        `${this.#context.destination}: holds Position ${held.position}, beyond the requested ${at}`,
      );
    }
    yield* readRows(lake, this.#context, this.#settings, shape, retired ?? null);
  }

  async close(): Promise<void> {
    const tidied = this.#tidying.close();
    await this.#turn.catch(() => undefined);
    await tidied;
    this.#cache.close();
    const lake = await this.#lake?.catch(() => null);
    await lake?.close();
  }

  async #openLake(): Promise<Lake> {
    const opening = this.#lake ?? Lake.open(this.#settings);
    this.#lake = opening;
    try {
      return await opening;
    } catch (error) {
      this.#lake = null;
      throw error;
    }
  }

  async #progressTable(): Promise<ProgressTable> {
    return new ProgressTable(await this.#openLake(), this.#context, this.#settings.namespace);
  }

  async #mergeInTurn(window: MergeWindow): Promise<Receipt> {
    for (let tries = 1; ; tries += 1) {
      try {
        const receipt = await this.#merge(window);
        await this.#cache.trim();
        return receipt;
      } catch (error) {
        this.#owned = null;
        (await this.#openLake().catch(() => null))?.forget();
        if (!(error instanceof StaleMerge) || tries === mergeTries) throw error;
        this.#context.log('info', 'others changed a table meanwhile: the Window is merged again', {
          sequence: window.sequence,
        });
      }
    }
  }

  async #merge(window: MergeWindow): Promise<Receipt> {
    const lake = await this.#openLake();
    const progressTable = await this.#progressTable();
    const { fencingToken: token } = window;
    let progress = await progressTable.load();
    if (progress) checkToken(progress, token, this.#context);
    if (progress === null || this.#owned !== token) {
      progress = await progressTable.takeOver(token);
      const removed = await sweepAttempts(lake, progress, token);
      if (removed > 0)
        this.#context.log('info', 'removed files of attempts that did not come into a table', {
          files: removed,
        });
      progress = (await progressTable.load()) ?? progress;
      this.#owned = token;
    }
    const already = decideMerge(window, progressTable.mark(progress));
    if (already) return already;
    await this.#context.failpoint('iceberg-sink-begun');
    const merge = new WindowMerge(
      {
        context: this.#context,
        settings: this.#settings,
        lake,
        progressTable,
        cache: this.#cache,
      },
      window,
      progress,
    );
    return merge.run();
  }
}
